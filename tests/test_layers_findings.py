"""What the study of layers makes of its records."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyses import claims
from analyses.findings import layers
from analyses.rules import beside_twins, significant
from analyses.statistics import placed
from brdyn.measures.null import Null
from brdyn.phases import Phases


def beside_itself(result):
    """A recorded result whose only untrained twin is the network itself."""
    tables = {name: table.assign(twin=1) for name, table in result.compared().items()}
    return result.with_twins(Null(("random",), tables))


@pytest.fixture(scope="module")
def of_itself(records) -> layers.Results:
    found = records.layers
    return found._replace(
        splices={name: beside_itself(one) for name, one in found.splices.items()},
        motions={name: one._replace(of=beside_itself(one.of)) for name, one in found.motions.items()},
        of_twins=(found.fixed_points,),
    )


BESIDE = {"work": "work", "shared": "excess", "opposed": "cosine", "decided": "state", "coupling": "coupling",
          "coupled_phases": "excess", "turned_together": "gap", "contracting": "radius"}  # fmt: skip


@pytest.mark.parametrize(("measure", "name"), BESIDE.items())
def test_a_twin_that_is_the_network_itself_has_its_numbers(of_itself, measure, name):
    """From tables that a twin is kept as, what a network's own summary says."""
    numbers = getattr(layers, measure)(of_itself)
    own, twins = zip(*beside_twins(numbers, name), strict=True)
    other = [value for (value,) in twins]
    np.testing.assert_allclose(other, own, rtol=1e-9)


@pytest.mark.parametrize("measure", BESIDE)
def test_nothing_is_learnt_where_the_twin_is_the_network(records, of_itself, measure):
    """Ten times itself: no claim that rests on twins holds, and none that fails without them is saved."""
    ten = of_itself._replace(
        splices={name: tenfold(one) for name, one in of_itself.splices.items()},
        motions={name: one._replace(of=tenfold(one.of)) for name, one in of_itself.motions.items()},
        of_twins=of_itself.of_twins * 10,
    )
    claim = claims.of(f"layers.{measure}")
    found = claim.judge(records._replace(layers=ten))
    alone = claim.rule.judge({**getattr(layers, measure)(ten)})
    assert found.holds is (False if alone is False else None)


def tenfold(result):
    null = result.null
    tables = {
        name: pd.concat([table.assign(twin=number) for number in range(1, 11)]) for name, table in null.tables.items()
    }
    return replace(result, null=Null(null.weights * 10, tables))


def test_every_network_has_as_many_twins(records):
    counts = {one.null.twins for one in records.layers.splices.values()}
    counts |= {one.of.null.twins for one in records.layers.motions.values()}
    assert counts == {9}
    assert len(layers.coupling(records.layers)["untrained"]) == 9


def test_shares_that_jump_at_a_boundary_are_told_from_a_drift(records):
    """Curves that are made up: a step at the one boundary, and a straight line."""
    found = records.layers
    (name, motion), *_ = found.motions.items()
    phases = Phases.from_dict(motion.of.phases.to_dict()).with_k(2)
    rows = motion.of.table.query("statistic == 'attention_share'")

    def share(curve):
        changed = rows.assign(mean=[curve[update - 1] for update in rows["layer"]])
        one = layers.Motion(replace(motion.of, table=changed, phases=phases), motion.totals)
        return layers.share_jumps(found._replace(motions={name: one}))["excess"]

    step = np.where(np.arange(phases.layers) < phases.boundaries[0], 0.2, 0.7)
    line = np.linspace(0.2, 0.7, phases.layers)
    for one in share(step).values():
        assert one.value == pytest.approx(0.5)
        assert one.p_value == pytest.approx(1 / (phases.layers - 1))
    for one in share(line).values():
        assert one.value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("p_value", "verdict"), [(0.01, True), (0.5, None), (0.95, None), (1.0, False)])
def test_a_test_against_other_boundaries_can_fail(p_value, verdict):
    """Where nearly all of them give more."""
    numbers = {"excess": {"a network": placed(-0.3, p_value, 100)}}
    assert significant("excess", each="network").judge(numbers) is verdict


def test_whole_phases_are_those_of_two_layers_and_more(records):
    rows = layers.whole_phases(records.layers)
    assert {row["name"] for row in rows} == set(layers.NETWORKS)
    assert all(row["last"] > row["first"] for row in rows)
    splice = records.layers.splices[rows[0]["name"]]
    matrix = splice.matrix("affine")
    assert rows[0]["affine"].value == matrix[rows[0]["first"] - 1, rows[0]["last"] - 1]
