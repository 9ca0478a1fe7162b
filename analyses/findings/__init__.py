"""What recorded runs say on each claim: numbers by the names that its rule, and its sentence, have for them."""

from __future__ import annotations

from typing import Any

Numbers = dict[str, Any]
"""Of several models, a mapping of each to its numbers as `each`; the claim is about the first."""
