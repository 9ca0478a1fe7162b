"""What a report advises to do, against doing nothing."""

import pytest

from brdyn.reporting.practice import advice, changes
from tests.reporting.built import found
from tests.reporting.test_verdict import splice


@pytest.mark.parametrize(
    ("over", "worthwhile"),
    [(1.2, False), (0.995, False), (0.5, True)],  # 0.995 has an interval up to 1.005
)
def test_a_block_that_is_not_shown_to_do_better_than_nothing_is_not_to_be_shared(over, worthwhile):
    one = found({"splice": splice(over)})
    (said,) = advice(one, changes(one))
    better = "To share: of the blocks shared that are shown to do better than leaving a layer out, block 3 also"
    none = "To share: no block is shown to do better in the place of another than leaving that out; by R² "
    assert said.startswith(better if worthwhile else none)
    assert ("saves" in said) == worthwhile


def test_what_does_better_than_nothing_is_shared_before_what_has_more_r2():
    better = splice()
    best = (better.table["block"] == 3) & (better.table["measure"] == "skill")  # that of the largest R²
    better.table.loc[best, ["mean", "low", "high"]] = [-0.5, -0.6, -0.4]
    one = found({"splice": better})
    first, *others = changes(one)
    assert first.layers == (1, 2)
    assert first.costs[0].mean < max(other.costs[0].mean for other in others)  # so that its R² is not the largest
    assert "of the blocks shared that are shown to do better" in advice(one, [first, *others])[0]
