"""From models and images to a report: what its folder lacks is measured, and each result kept when it is whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brdyn.data import ImageSet
from brdyn.environment import device_name
from brdyn.errors import BrdynError, UsageError
from brdyn.interventions import layer_surgery, perturbation_repair, splice_skill
from brdyn.measures.dynamics import token_dynamics
from brdyn.measures.null import with_null
from brdyn.models import VisionTransformer, untrained_twins
from brdyn.models.twins import check_redraws
from brdyn.progress import stage
from brdyn.reporting import plan
from brdyn.reporting.assemble import assemble
from brdyn.reporting.found import Found
from brdyn.reporting.kept import differs, is_there, origin_of, read_kept
from brdyn.reporting.page import render_page
from brdyn.reporting.plan import (
    DYNAMICS,
    INTERVENTIONS,
    MEASURING,
    PERTURB,
    PHASES,
    PROBE,
    RANDOM,
    RAPTOR,
    RAPTOR_EVAL,
    REPORT,
    SPECTRA,
    SPLICE,
    ReportSettings,
    Section,
    Subject,
    check_others,
    is_report,
    others_reported,
    said_duration,
)
from brdyn.reporting.prepared import Prepared
from brdyn.reporting.raptors import evaluate_raptor, fitted_here, given_raptors
from brdyn.reporting.reading import cannot_be_probed, given_probes, probe_for, seconds_to_probe
from brdyn.reporting.result import Report
from brdyn.reporting.speed import measure_speed
from brdyn.reporting.splicing import images_to_fit, splicing
from brdyn.result import Result
from brdyn.store import OutputFolder, check_empty
from brdyn.trajectory import Stream
from brdyn.words import counted

# In this order, phases with dynamics.
MEASURED = (DYNAMICS, PERTURB, INTERVENTIONS, SPLICE, SPECTRA, PROBE)
OPTIONAL = (INTERVENTIONS, SPECTRA, PROBE)  # that not every model allows
OpenModel = Callable[[Subject], VisionTransformer]
OpenImages = Callable[[VisionTransformer], ImageSet]
Say = Callable[[str], None]


@dataclass(frozen=True)
class ReportRun:
    """A report that is being made.

    Parameters
    ----------
    out : Path
    settings : ReportSettings
    stream : Stream
    formats : tuple of str
        Of the pictures.
    say : callable
        Told what is done, line by line.
    """

    out: Path
    settings: ReportSettings
    stream: Stream
    formats: tuple[str, ...]
    say: Say

    def prepare(self, subject: Subject, open_model: OpenModel, open_images: OpenImages) -> Prepared:
        """Load a model and find its images; a failure is kept and not raised, unless it is of what was asked for."""
        found = Prepared(subject, self.out / subject.folder)
        self.say(f"{subject.folder}: loading …")
        try:
            with stage(f"{subject.folder}: loading", at_once=False):
                self._load(found, open_model, open_images)
        except UsageError:
            raise
        except BrdynError as error:
            found.failures["loading"] = str(error)
        return found

    def _load(self, one: Prepared, open_model: OpenModel, open_images: OpenImages) -> None:
        """The model, its images, and what makes each result the one that is asked for."""
        model = open_model(one.subject)
        if self.settings.null:
            check_redraws(model)
        if self.settings.twin and one.subject.init != RANDOM:
            check_redraws(model, "twin")
            if model.info.is_random:
                raise UsageError(f"{model.info.name!r} is untrained, as its `twin` would be; drop `twin`")
        images = open_images(model)
        one.model, one.images, one.untrained = model, images, model.info.is_random
        if why := cannot_be_probed(images, model.depth):
            one.left_out[PROBE] = why
        if not self.settings.of_size.stretched:
            one.left_out[SPECTRA] = f"it is not part of the size {self.settings.size!r}"
        one.origins = {
            section: origin_of(section, model, self._part(section, images), self.settings)
            for section in (PHASES, *MEASURED)
            if section not in one.left_out
        }

    def add_given(self, prepared: Sequence[Prepared]) -> None:
        """Say of each model which Raptor is to be fitted or evaluated, and what was probed elsewhere."""
        loaded = [one for one in prepared if one.model is not None]
        models = [one.model for one in loaded if one.model is not None]
        given = given_raptors(self.settings.raptors, models)
        probes = given_probes(self.settings.probes, models)
        for number, one in enumerate(loaded):
            one.probes = probes[number]
            assert one.model is not None
            assert one.images is not None
            one.raptor, digest = given.get(number, ("", ""))
            fits = bool(self.settings.fit_raptor) and not one.raptor
            for section in (*([RAPTOR] if fits else []), *([RAPTOR_EVAL] if fits or one.raptor else [])):
                origin = origin_of(section, one.model, one.images, self.settings)
                origin["asked"]["raptor"] = digest
                one.origins[section] = origin

    def warm_up(self, one: Prepared) -> None:
        """Time the model."""
        assert one.model is not None
        assert one.images is not None
        try:
            with stage(f"{one.subject.folder}: timing a few passes", at_once=False):
                one.speed = measure_speed(one.model, one.images)
        except BrdynError as error:
            one.failures["loading"] = str(error)
            one.model = None

    def _part(self, section: Section, images: ImageSet) -> ImageSet:
        """The images of a section: fewer where each costs many passes."""
        most = getattr(self.settings.of_size, section.images) if section.images else len(images)
        return images.some(most, self.settings.seed)

    def planned(self, one: Prepared) -> tuple[list[str], float]:
        """What is to be done with a model, in words, and about how many seconds that takes."""
        parts, total = [], 0.0
        for section in one.origins:
            if section is PHASES:
                continue  # in the pass of dynamics
            name = "phases and dynamics" if section is DYNAMICS else section.name
            if not (one.wants(section) or (section is DYNAMICS and one.wants(PHASES))):
                parts.append(f"{name}: there already")
                continue
            if section is RAPTOR:
                parts.append(f"raptor: {self.settings.fit_raptor} steps, time not known")
                continue
            assert one.model is not None
            assert one.images is not None
            assert one.speed is not None
            part = self._part(section, one.images)
            targets = len(self._targets(one.model) or (*one.model.tokens.groups, "all"))
            cost = plan.passes(section, one.model.depth, targets, self.settings)
            seconds = one.speed.seconds(len(part), cost) + section.drawing
            if section is PROBE:
                seconds += seconds_to_probe(one.model, part, self.settings)
            if section is SPLICE:
                seconds += one.speed.seconds(images_to_fit(one.images, self.settings), MEASURING)
            total += seconds
            parts.append(f"{name}: {counted(len(part), 'image')}, about {said_duration(seconds)}")
        return parts, total

    def measure(self, one: Prepared) -> None:
        """Do the sections of a model that are not there; one that fails leaves the others."""
        for section in (*MEASURED, RAPTOR, RAPTOR_EVAL):
            wanted = one.wants(section) or (section is DYNAMICS and one.wants(PHASES))
            if section not in one.origins or not wanted:
                continue
            if DYNAMICS.name in one.failures or (section is RAPTOR_EVAL and RAPTOR.name in one.failures):
                break
            started = time.perf_counter()
            self.say(f"{one.subject.folder}: {section.name} …")
            try:
                with stage(f"{one.subject.folder}: {section.name}", at_once=False):
                    self._measure(one, section)
            except BrdynError as error:
                if section in OPTIONAL and isinstance(error, UsageError):
                    # These images or blocks do not do for it, and nothing is wrong with the model.
                    one.left_out[section] = str(error)
                    del one.origins[section]
                    self.say(f"{one.subject.folder}: no {section.name}: {error}")
                    continue
                one.failures[section.name] = str(error)
                self.say(f"{one.subject.folder}: {section.name} failed: {error}")
                continue
            self.say(f"{one.subject.folder}: {section.name} in {said_duration(time.perf_counter() - started)}")

    def _measure(self, one: Prepared, section: Section) -> None:
        """Measure a section and keep it."""
        assert one.model is not None
        assert one.images is not None
        model, settings, size = one.model, self.settings, self.settings.of_size
        images = self._part(section, one.images)
        if section is RAPTOR:
            place = one.folder / RAPTOR.name
            with fitted_here(model, images, self._phases(one), settings, place, self.stream) as fit:
                one.keep(fit, section, self.formats)
            return
        found: Result
        if section is RAPTOR_EVAL:
            raptor = one.raptor or str(one.folder / RAPTOR.name)
            found = evaluate_raptor(raptor, model, images, settings, bool(one.raptor), self.stream)
        elif section is PROBE:
            found = probe_for(model, images, self._phases(one), settings, self.stream)
        elif section is DYNAMICS:
            found = self._motion(one, images)
        elif section is SPECTRA:
            found = self._beside_twins(
                token_dynamics, one, images, measures=("spectra",), krylov_steps=size.krylov_steps
            )
        elif section is PERTURB:
            found = self._beside_twins(perturbation_repair, one, images, eps=size.eps, targets=self._targets(model))
        elif section is SPLICE:
            given, left_out = splicing(model, one.images, self._phases(one), settings)
            spliced = self._beside_twins(splice_skill, one, images, **given)
            found = replace(spliced, notes=(*spliced.notes, *left_out))
        else:
            found = self._beside_twins(layer_surgery, one, images, kinds=size.kinds)
        one.keep(found, section, self.formats)

    def _targets(self, model: VisionTransformer) -> Sequence[str] | None:
        """Which tokens get noise; each group and all where None."""
        return None if self.settings.of_size.together else model.tokens.readouts

    def _motion(self, one: Prepared, images: ImageSet) -> Any:
        """Dynamics, with the phases that are found in the same pass; those are kept first."""
        assert one.model is not None
        size = self.settings.of_size
        twins = untrained_twins(one.model, self.settings.null, self.settings.seed)
        found = with_null(
            token_dynamics, one.model, images, twins=twins, stream=self.stream, seed=self.settings.seed,
            leave_out=size.leave_out, measures=size.measures,
        )  # fmt: skip
        similarity = found.phases.similarity
        assert similarity is not None
        similarity = replace(similarity, provenance=found.provenance)
        phases = replace(found.phases, similarity=similarity, provenance=found.provenance)
        one.keep(phases, PHASES, self.formats)
        return found

    def _phases(self, one: Prepared) -> Any:
        return read_kept(one.folder, PHASES)

    def _beside_twins(self, measure: Callable[..., Any], one: Prepared, images: ImageSet, **options: Any) -> Any:
        assert one.model is not None
        twins = untrained_twins(one.model, self.settings.null, self.settings.seed)
        return with_null(
            measure, one.model, images, self._phases(one), twins=twins, stream=self.stream, seed=self.settings.seed,
            **options,
        )  # fmt: skip


def make_report(
    models: Sequence[Subject],
    open_model: OpenModel,
    open_images: OpenImages,
    out: Path,
    settings: ReportSettings,
    *,
    stream: Stream,
    overwrite: bool = False,
    formats: tuple[str, ...] = ("png",),
    say: Say = lambda line: None,
) -> Report:
    """Make a report in a folder; see :func:`brdyn.report`."""
    if not (overwrite or is_report(out)) and out.is_dir():
        check_empty(out)
    if not overwrite:
        check_others(out, others_reported(out, models))
    run = ReportRun(out, settings, stream, formats, say)
    with OutputFolder(out, True, result=REPORT) as folder:
        prepared = [run.prepare(one, open_model, open_images) for one in models]
        run.add_given(prepared)
        if not overwrite:
            check_others(out, _others(prepared))
        for one in prepared:
            one.look()
            if one.model is not None:
                run.warm_up(one)
        _check_some(prepared)
        _say_plan(run, prepared)
        with _kept_when_stopped(out, prepared):
            for one in prepared:
                if one.model is not None:
                    run.measure(one)
            _check_some(prepared)
            found = [_found(one) for one in prepared]
            report = assemble(found, settings, _kind(prepared))
            say("drawing the page …")
            with stage("drawing the page", at_once=False):
                report = replace(report, beside=render_page(report, found, out, formats))
            report.write(folder)
        return report


@contextmanager
def _kept_when_stopped(out: Path, prepared: Sequence[Prepared]) -> Iterator[None]:
    """Where a user stops what is done here, say that what is whole is not lost, if anything is."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and any(
            is_there(one.folder, section) for one in prepared for section in one.origins
        ):
            error.__notes__ = [
                f"results that are whole stay in {str(out)!r}; the same command goes on",
                *getattr(error, "__notes__", []),
            ]
        raise


def _others(prepared: Sequence[Prepared]) -> Iterator[tuple[str, str]]:
    """Results in the folders of the models that are of something else, and why."""
    for one in prepared:
        for section, origin in one.origins.items():
            if why := differs(one.folder, section, origin):
                yield f"{one.subject.folder}/{section.name}", why


def _check_some(prepared: Sequence[Prepared]) -> None:
    """Raise the failure of the first model where no model gave anything."""
    failed = [next(iter(one.failures.values()), "") for one in prepared]
    if all(one.model is None or DYNAMICS.name in one.failures for one in prepared):
        raise BrdynError(failed[0])


def _say_plan(run: ReportRun, prepared: Sequence[Prepared]) -> None:
    """Tell what will be done, and how long it should take."""
    lines, total = [], 0.0
    for one in prepared:
        if one.model is None:
            lines.append(f"  {one.subject.folder}: not loaded: {one.failures['loading']}")
            continue
        parts, seconds = run.planned(one)
        total += seconds
        lines.append(f"  {one.subject.folder}: {'; '.join(parts)}")
        lines += [f"    {section.name} is measured again: {why}" for section, why in one.damaged.items()]
    unlike = {(one.model.info.family, one.model.depth, one.model.info.width) for one in prepared if one.model}
    run.say(
        f"report on {counted(len(prepared), 'model')}: about {said_duration(total)} on {device_name(_kind(prepared))}"
    )
    for line in lines:
        run.say(line)
    if len(unlike) > 1:
        run.say("  models of different families or sizes: compared over relative depth")


def _kind(prepared: Sequence[Prepared]) -> str:
    """The kind of device that the models are on."""
    return next(one.model.device.type for one in prepared if one.model is not None)


def _found(one: Prepared) -> Found:
    """What is there of a model, to report on."""
    results = {section.name: read_kept(one.folder, section) for section in one.origins if not one.wants(section)}
    return Found(
        name=one.subject.name,
        folder=one.subject.folder,
        untrained=one.untrained,
        results={name: result for name, result in results.items() if result is not None},
        failures=dict(one.failures),
        speed=one.speed,
        left_out={section.name: why for section, why in one.left_out.items()},
        probes=one.probes,
    )
