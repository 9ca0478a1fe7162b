"""Which values are whole numbers: Python's, NumPy's and torch's alike."""

from __future__ import annotations

import operator
from typing import Any


def whole(value: Any) -> int | None:
    """A whole number as an int; None for anything else, as True and 2.0.

    >>> import numpy as np
    >>> from brdyn.whole import whole
    >>> whole(np.int64(3)), whole(True), whole(2.0), whole("2")
    (3, None, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
