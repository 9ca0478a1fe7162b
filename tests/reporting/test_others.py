"""A report over one on other networks."""

import pytest

from brdyn.errors import UsageError
from tests.reporting.conftest import named


def test_a_report_on_other_networks_is_not_replaced(again):
    """More networks may join it; without one of its own it would be another."""
    kept = {path: path.read_bytes() for path in again.out.rglob("*") if path.is_file()}
    words = r"not of this report: deeper \(a network that is not asked for\); choose another `out`, or pass `overwrite"
    for models in ([named("little")], [named("little"), named("other", seed=3)]):
        with pytest.raises(UsageError, match=words):
            again(models)
    assert {path: path.read_bytes() for path in again.out.rglob("*") if path.is_file()} == kept
    found, written, _ = again([named("little")], overwrite=True)
    assert ([one.label for one in found.models], written) == (["little"], set())
    assert len(again([named("little"), named("deeper", 8, 1)])[0].models) == 2
    (again.out / "report.json").write_text('{"models": [3, {"folder": null}, {}]}')
    assert len(again()[0].models) == 2
