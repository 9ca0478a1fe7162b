"""What the study of dense tasks makes of its records."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses import claims
from analyses.findings import dense
from analyses.statistics import Estimate
from brdyn.probes import ClassScore, DepthScore, LayerProbe, OverlapScore
from brdyn.probes.baselines import baseline_scores
from brdyn.probes.counts import Counts
from brdyn.probes.layer_choice import PHASE_ENDS, REGULAR
from brdyn.probes.layer_result import CLASSES
from brdyn.raptor import Evaluation
from brdyn.raptor.evaluation import RAPTOR, TEACHER

TASKS = {"classes": "classification", "masks": "segmentation", "depth": "depth"}
IMAGES = 400


def counted(task: str, score: float, images: int = IMAGES) -> np.ndarray:
    """The same in each image: an accuracy, a mean IoU of two classes, or an RMSE."""
    of_one = {
        "classes": [score, 1],
        "masks": [50 * score, 50 * score, 50, 50, 50, 50],  # IoU is s / (2 - s)
        "depth": [10, 10 * score**2, 1, 5],
    }
    return np.tile(np.array(of_one[task], float), (images, 1))


NOTHING = {"classes": 0.1, "masks": 0.1, "depth": 5.0}  # what knowing nothing of an image gets


def probed(
    task: str, scores: dict[tuple[str, str], list[np.ndarray]], sets=None, nothing: float | None = None
) -> LayerProbe:
    """A result with what was counted for each seed of a model and place."""
    score = {"classes": ClassScore(), "masks": OverlapScore(["sky", "road"]), "depth": DepthScore()}[task]
    counts = Counts(score)
    for (model, place), seeds in scores.items():
        for one in seeds:
            counts.add(model, place, "linear", one)
    weights = counts.weights(0)
    return LayerProbe(
        TASKS[task], counts.scores(weights), counts.pairs(weights, {}), pd.DataFrame(), pd.DataFrame(), sets or {},
        dict(score.words), (), {"test": IMAGES}, counts.table(range(IMAGES)),
        baseline=baseline_scores(score, counted(task, nothing or NOTHING[task]), weights),
    )  # fmt: skip


def results(kept: dict[str, dict[int, float]], nothing: dict[str, float] | None = None) -> dense.Results:
    """Raptors beside a teacher that gets 0.8 of the classes and masks, and an RMSE of 0.8."""
    raptors = {}
    for task, by_k in kept.items():
        for k, share in by_k.items():
            own = 0.8 / share if task == "depth" else 0.8 * share
            seeds = {
                (TEACHER, "12"): [counted(task, 0.8)] * 2,
                (RAPTOR, "12"): [counted(task, one) for one in (own, own * 1.001)],
            }
            raptors[task, k] = Evaluation(None, None, layers=probed(task, seeds, nothing=(nothing or {}).get(task)))  # type: ignore[arg-type]
    return dense.Results(raptors, {})


ALIKE = dict.fromkeys(dense.KS, 0.9)


@pytest.mark.parametrize(("task", "expected"), [("classes", 0.5), ("depth", 0.5), ("masks", 0.25 / (2 / 3))])
def test_a_share_is_of_the_main_score_and_below_one_where_it_is_worse(task, expected):
    bad = 0.4 if task != "depth" else 1.6
    found = probed(task, {(TEACHER, "12"): [counted(task, 0.8)], (RAPTOR, "12"): [counted(task, bad)]})
    one = dense.share(found, (RAPTOR, "12"), (TEACHER, "12"))
    assert one.seeds == pytest.approx([expected])
    assert one.again == pytest.approx(expected)  # all images are alike
    assert not np.isfinite(one.estimate.low)  # one seed tells no spread


def test_a_share_is_of_the_same_seed_and_image_in_whatever_order_they_lie():
    rng = np.random.default_rng(0)
    own, other = (rng.integers(0, 2, (2, IMAGES)).astype(float) * 0.5 + 0.5 for _ in range(2))

    def of(rows):
        return [np.stack([one, np.ones(IMAGES)], 1) for one in rows]

    found = probed("classes", {(TEACHER, "12"): of(other), (RAPTOR, "12"): of(own)})
    one = dense.share(found, (RAPTOR, "12"), (TEACHER, "12"))
    assert one.seeds == pytest.approx(own.mean(1) / other.mean(1))
    object.__setattr__(found, "counted", found.counted.sample(frac=1, random_state=1))
    again = dense.share(found, (RAPTOR, "12"), (TEACHER, "12"))
    assert np.allclose(one.again, again.again)
    assert one.again.std() > 0


def test_an_interval_is_over_images_and_seeds_together():
    one = dense.Share(np.array([1.0, 3.0]), np.array([0.0, 2.0]))
    assert one.errors == [(pytest.approx(2**0.5), np.inf), (pytest.approx(1.0), 1)]
    apart = one.less(one)
    assert apart.value == 0
    assert apart.high > one.estimate.high - one.value  # two that know nothing of each other


@pytest.mark.parametrize(
    ("masks", "depth", "verdict"),
    [(0.7, 0.7, "**holds**"), (0.7, 0.9, "cannot be told"), (0.7, 0.95, "**fails**")],
)
def test_dense_tasks_lose_more_where_both_do(records, masks, depth, verdict):
    found = results({"classes": ALIKE, "masks": dict.fromkeys(dense.KS, masks),
                     "depth": dict.fromkeys(dense.KS, depth)})  # fmt: skip
    judged = claims.of("dense.dense_loses_more").judge(records._replace(dense=found))
    assert judged.verdict == verdict
    numbers = dense.dense_loses_more(found)
    assert numbers["excess"]["depth"].value == pytest.approx(0.9 - depth, abs=0.01)
    assert numbers["lost"]["classes"] == pytest.approx(0.1, abs=0.01)


def test_what_is_had_for_nothing_is_kept_whatever_is_lost(records):
    """Of a teacher's .8 of classes, .1 of which is had for nothing, .4 is kept: 3 of 7; of an IoU of .667, .053 of
    which is, .429: .61."""
    found = results({"classes": dict.fromkeys(dense.KS, 0.5), "masks": dict.fromkeys(dense.KS, 0.75)})
    numbers = dense.beyond_nothing(found)
    own, teacher, nothing = (share / (2 - share) for share in (0.6, 0.8, 0.1))
    assert numbers["kept"]["classes"].value == pytest.approx(3 / 7, abs=1e-3)
    assert numbers["kept"]["masks"].value == pytest.approx((own - nothing) / (teacher - nothing), abs=1e-3)
    assert numbers["had"] == {"classes": pytest.approx(0.1), "masks": pytest.approx(nothing)}
    assert numbers["more"].value == pytest.approx(numbers["kept"]["classes"].value - numbers["kept"]["masks"].value)
    assert claims.beyond_nothing(found).endswith("more than classes")
    told = claims.beyond_nothing(records.dense)
    assert "masks lose +14.4%" in told
    assert told.endswith("more than classes, the other way round")
    assert told in claims.row(claims.of("dense.dense_loses_more"), records).why


def test_a_difference_has_the_luck_of_the_raptors_that_are_in_it():
    """Of three that lose 1, 2 and 3 more: 2, and besides a standard error of 1 / sqrt(3) over them."""
    sure = np.full(3, 1.0), np.full(4, 1.0)
    one, other = dense.Share(*sure, np.array([2.0, 4.0, 6.0])), dense.Share(*sure, np.array([1.0, 2.0, 3.0]))
    half = stats.t.ppf(0.975, 2) / 3**0.5
    assert one.less(other).high == pytest.approx(half)
    assert dense.Share(*sure).less(dense.Share(*sure)).high == 0
    assert dense.Share(*sure, np.ones(1)).less(dense.Share(*sure, np.ones(1))).high == np.inf


def test_a_fourth_block_gains_what_it_keeps_beyond_three(records):
    found = results({"classes": ALIKE, "masks": {2: 0.5, 3: 0.7, 4: 0.8}, "depth": {2: 0.9, 3: 0.7, 4: 0.75}})
    numbers = dense.four_over_three(found)
    assert numbers["gain"]["depth"].value == pytest.approx(0.05, abs=0.01)
    judged = claims.of("dense.four_over_three").judge(records._replace(dense=found))
    assert "classes +0.0%" in judged.said
    assert judged.verdict == "cannot be told"  # of one Raptor of each k


@pytest.mark.parametrize("task", dense.DATA)
@pytest.mark.parametrize(("beside", "blind"), [(1.0, False), (0.0, True)])
def test_a_task_whose_heads_do_not_beat_knowing_nothing_is_told_and_not_judged(records, task, beside, blind):
    near = {"classes": 0.8 - 0.1 * beside, "masks": 0.8 - 0.1 * beside, "depth": 0.8 + 0.1 * beside}
    found = results({"classes": ALIKE, **{one: {2: 0.69, 3: 0.7, 4: 0.71} for one in dense.DENSE}}, {task: near[task]})
    loses = claims.of("dense.dense_loses_more").judge(records._replace(dense=found))
    assert loses.verdict == ("cannot be told" if blind else "**holds**")
    assert (f"heads of {task} are not shown" in loses.said) == blind
    gains = claims.of("dense.four_over_three").judge(records._replace(dense=found))
    assert gains.verdict == "cannot be told"
    assert "+1.0%" in gains.said  # the number is told, also of what is not judged
    lost = results({"classes": ALIKE, "masks": dict.fromkeys(dense.KS, 0.95), "depth": ALIKE}, {task: near[task]})
    judged = claims.of("dense.dense_loses_more").judge(records._replace(dense=lost))
    assert judged.verdict == ("cannot be told" if blind and task != "depth" else "**fails**")


def test_phase_ends_are_read_against_regular_layers():
    sets = {REGULAR: "3+6", PHASE_ENDS: "2+6"}
    layers = {
        task: probed(task, {("vit", "3+6"): [counted(task, 0.5)] * 2,
                            ("vit", "2+6"): [counted(task, one) for one in (0.6, 0.6001)]}, sets)
        for task in dense.DATA
    }  # fmt: skip
    numbers = dense.phase_ends(dense.Results({}, layers, packaged=layers["masks"]))
    assert set(numbers["gain"]) == set(dense.DATA)  # the packaged network is judged by no rule
    assert numbers["gain"]["classes"].value == pytest.approx(0.2, abs=1e-3)
    assert numbers["gain"]["depth"].value == pytest.approx(0.5 / 0.6 - 1, abs=1e-3)  # an error that grows
    assert (numbers["ends"], numbers["regular"]) == ("2+6", "3+6")
    assert numbers["blind"] == ""
    found = layers["depth"]
    least = baseline_scores(DepthScore(), counted("depth", 0.5), np.ones((5, IMAGES)))
    object.__setattr__(found, "baseline", least)
    numbers = dense.phase_ends(dense.Results({}, layers))
    assert np.isnan(numbers["gain"]["depth"].value)
    assert "heads of depth are not" in numbers["blind"]


def test_the_tables_have_a_row_for_what_is_recorded():
    class Faithful:
        def curve(self, statistic: str, group: str) -> pd.Series:
            assert (statistic, group) == ("r2", "all")
            return pd.Series([0.9, 0.4], index=[11, 12])

    found = results({"depth": {3: 0.8}})
    object.__setattr__(found.raptors["depth", 3], "fidelity", Faithful())
    (row,) = dense.table(found)
    assert (row["task"], row["k"], row["r2"], row["score"]) == ("depth", 3, 0.4, "RMSE (m)")
    assert row["kept"].value == pytest.approx(0.8, abs=0.01)
    assert isinstance(row["kept"], Estimate)
    assert row["raptor"] == pytest.approx(1.0, abs=0.01)


def test_what_is_read_by_layer_and_from_several_side_by_side():
    each = {("vit", str(layer)): [counted("depth", abs(layer - 4.5))] * 2 for layer in range(1, 13)}
    joined = {("vit", "3+6"): [counted("depth", 0.5)] * 2, ("vit", "2+6"): [counted("depth", 0.4)] * 2}
    sets = {"best single": "4", "chosen": "2+6", REGULAR: "3+6"}
    (line,) = dense.read(dense.Results({}, {"depth": probed("depth", each | joined, sets, 7.0)}))
    assert (line.network, line.task, line.score) == ("imgfocus_vits14", "depth", "RMSE (m)")
    assert line.values == pytest.approx([3.5, 2.5, 1.5, 0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5])
    assert (line.best, line.nothing) == (4, pytest.approx(7.0))
    chosen, regular = line.sets
    assert (chosen["label"], chosen["place"], chosen["value"]) == ("chosen", "2+6", pytest.approx(0.4))
    assert chosen["over"].value == pytest.approx(0.25)  # an error of 0.4 for one of 0.5
    assert (regular["label"], regular["over"]) == (REGULAR, None)


def test_the_packaged_network_stands_beside():
    own = probed("classes", {("vit", str(layer)): [counted("classes", 0.5)] for layer in range(1, 13)})
    found = dense.Results({}, {}, own)
    assert [(row.network, row.task) for row in dense.read(found)] == [("cifar_vit12", "CIFAR-10")]


def test_classes_of_pixels_are_told_one_by_one():
    found = results({"masks": {3: 0.5}})
    layers = found.raptors["masks", 3].layers
    rows = [(model, "12", probe, name, iou, pixels)
            for model, iou in ((TEACHER, 0.8), (RAPTOR, 0.4))
            for probe in ("linear", "ridge")
            for name, pixels in (("sky", 10.0), ("sign", 0.0))]  # fmt: skip
    object.__setattr__(layers, "classes", pd.DataFrame(rows, columns=CLASSES))
    assert dense.by_class(found).to_dict("index") == {"sky": {TEACHER: 0.8, "k = 3": 0.4}}
    assert dense.by_class(dense.Results({}, {})).empty
