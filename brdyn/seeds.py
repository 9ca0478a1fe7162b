"""Which numbers are seeds: one rule for the library and the command line."""

from __future__ import annotations

from brdyn.arguments import shown
from brdyn.errors import UsageError
from brdyn.whole import whole

LARGEST_SEED = 2**63 - 1
RANGE = "from 0 to 2^63 - 1"


def check_seed(seed: int) -> int:
    """A seed as an int, if it is one: a whole number from 0 to 2^63 - 1, as all generators here take.

    Raises
    ------
    UsageError
        If it is not.
    """
    number = whole(seed)
    if number is None or not 0 <= number <= LARGEST_SEED:
        raise UsageError(f"seed {shown(seed)} is not a whole number {RANGE}")
    return number
