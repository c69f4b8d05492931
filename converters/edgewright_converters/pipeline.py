"""`convert`: the whole conversion, `export → optimise → decide → quantise → verify → gate → package`.

Work is shared where profiles share it: the quantisation is decided once, and a file is made once for every
distinct setting, however many profiles ask for it.
"""

from __future__ import annotations

import math
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from edgewright.artifact.manifest import ArtifactManifest, DataKind, ModelFormat, Precision, Verdict
from edgewright.durable_file import check_writable
from edgewright.errors import ConversionError, DataError
from edgewright_converters import data_free
from edgewright_converters.accuracy_gate import GateLimits
from edgewright_converters.alternatives import alternatives
from edgewright_converters.batches import Data
from edgewright_converters.calibration import SampleSet, load_samples, unexercised
from edgewright_converters.comparison import classification_output
from edgewright_converters.evidence import Evidence, gather
from edgewright_converters.gate import gate, worst
from edgewright_converters.graphs import FloatGraphs, float_graphs, with_own_ranges
from edgewright_converters.held_out import Part, parts
from edgewright_converters.ladder import CALIBRATION_SAMPLES, Attempt, Climb, Effort, Fit, climb, climbed
from edgewright_converters.large_blocks import reuse_large_blocks
from edgewright_converters.layer_cost import layer_costs
from edgewright_converters.package import Packable, package
from edgewright_converters.precision_choice import Choice, choose
from edgewright_converters.prediction import Work, predicted_latencies, work_of
from edgewright_converters.quantise import QuantisedModel, quantise_as
from edgewright_converters.quantise.decision import Decision, TfliteTarget, as_onnx, as_tflite, own_ranges
from edgewright_converters.quantise.tflite_static import quantise_tflite
from edgewright_converters.repeatability import check_repeatable
from edgewright_converters.source import check_takes, load_source
from edgewright_converters.steps import VERIFY_S, VERIFY_SAMPLE_S, OnStep, Steps
from edgewright_converters.targets import Setting, formats, settings
from edgewright_converters.trial import Goal, Trial, Tryout
from edgewright_converters.verify import VerifiedModel, verify
from edgewright_profiles import HardwareProfile, load_profile

Array = NDArray[Any]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion made; each manifest holds the figures of its artifact and the gate's report on it."""

    name: str
    version: str
    output: Path | None
    """None, as the digest: the gate failed, and nothing was written."""
    release_digest: str | None
    artifacts: tuple[ArtifactManifest, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    """The rungs that were climbed, in order, and what each bought."""
    evidence: Evidence | None = None
    """Every activation and its error; gathered only where a report was asked for."""

    @property
    def verdict(self) -> Verdict:
        """The worst of the artifacts' verdicts."""
        return worst([manifest.gate.verdict for manifest in self.artifacts if manifest.gate])

    @property
    def reference(self) -> str | None:
        """What `edgewright.load` and the rollout take; None where nothing was written."""
        return f"oci:{self.output}:{self.name}:{self.version}" if self.output else None


def convert(
    source: str | Path | torch.nn.Module,
    *,
    calibration: Data | None = None,
    profile: str | Sequence[str],
    output: str | Path,
    weights: str | Path | None = None,
    evaluation: Data | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    input_range: tuple[float, float] | None = None,
    format: ModelFormat | Sequence[ModelFormat] | None = None,  # noqa: A002 - the word of the command
    name: str | None = None,
    version: str = "1.0.0",
    max_drop: float = 1.0,
    min_sqnr: float | None = None,
    effort: Effort = "standard",
    precision: Precision | Literal["auto"] = "auto",
    keep_failed: bool = False,
    report: str | Path | None = None,
    on_step: OnStep | None = None,
) -> ConversionReport:
    """Convert a model to INT8 artifacts, one per profile and format, verified as their runtime executes them.

    `source` is an `nn.Module`, `module:function`, a `.pt2`, a TorchScript `.pt` or an `.onnx` file; `weights` a
    state dict for a model that code builds. Data is a path, `module:function`, arrays by input name (`x` where
    there is one input, `y` the labels), a loader or a function that yields batches. Without `evaluation` the
    figures are from the calibration data, and say so.

    Without `calibration` static INT8 follows from batch-norm statistics (see `data_free`), and accuracy is not
    measured unless there is `evaluation`; `input_shapes` by input name are then needed for an `nn.Module`, and
    `input_range`, the least and greatest value of its float inputs, helps.

    The report's `verdict` is the gate's: accuracy may drop by `max_drop` points, each output's SQNR must reach
    `min_sqnr` decibels where given, and the profile's budgets hold. `effort` bounds how far the ladder of repairs
    is climbed for it. `precision` is INT8 unless that turns out slower than float or too far from it. After a
    `fail` nothing is written unless `keep_failed`. `report` is where an HTML page with the pictures goes, whatever
    the verdict. Raises `EdgewrightError` of the kind that fits, with nothing written.
    """
    limits = GateLimits(max_drop, min_sqnr)
    if not (0 <= max_drop <= 100 and (min_sqnr is None or math.isfinite(min_sqnr))):
        raise ConversionError(
            f"max_drop is {max_drop:g} points and min_sqnr {min_sqnr} dB",
            remedy="give a drop from 0 to 100, and a finite number of decibels",
        )
    if report is not None:
        check_writable(Path(report))
    reuse_large_blocks()
    started = time.perf_counter()
    profiles = [load_profile(p) for p in ([profile] if isinstance(profile, str) else profile)]
    model = load_source(source, weights)
    wanted = formats(model, profiles, format)
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", model.name).strip("-._") or "model"
    chosen = settings(profiles, wanted)
    rungs = (rung.name for rung in (climbed(effort) if calibration is not None else data_free.RUNGS))
    look = () if report is None else ("look",)
    steps = Steps(on_step, ("read", "export", *rungs, "quantise", "verify", *look, "package"))

    steps.next("read", "reading the data")
    unseen: data_free.Generated | None = None
    warnings: tuple[str, ...] = ()
    if calibration is None:
        unseen = data_free.generate(model, input_shapes, input_range)
        samples = unseen.samples
    else:
        samples = load_samples(calibration, model.input_names, model.optional_names)
        warnings = unexercised(samples)
    model = model.taking(samples.input_names)
    examples = [sample.inputs for sample in samples.head(2)]
    outputs = check_takes(model, examples[0])
    judged = samples if evaluation is None else load_samples(evaluation, model.input_names)
    if judged is not samples:
        check_takes(model, judged.head(1)[0].inputs)
    for labelled in (samples, judged):
        _check_labels(labelled, outputs)
    check_repeatable(model, examples)
    steps.expect("verify", VERIFY_S + VERIFY_SAMPLE_S * judged.count)

    steps.next("export", f"exporting to {' and '.join(wanted)}")
    graphs = with_own_ranges(float_graphs(model, examples, outputs, wanted), samples)
    split = parts(samples) if unseen is None else ()
    judging = [part.judged for part in split] or [samples]
    tryout = Tryout.on(model.run, judging, "calibration" if unseen is None else "generated")
    goal = Goal(limits.max_drop, limits.min_sqnr_db)
    climbing = None
    if unseen is not None and precision in ("auto", "int8"):
        attempt = partial(_tried, tryout, graphs, min(set(chosen.values())))
        climbing = data_free.decide(
            graphs.graph, model, unseen, attempt, lambda r: steps.next(r.name, r.what)
        )
        goal = data_free.GOAL
    elif precision in ("auto", "int8"):
        climbing = _climbed(tryout, graphs, samples, split, profiles, chosen, limits, effort, steps)

    steps.next("quantise", "quantising")
    choices = {
        setting: _chosen(
            setting,
            [p for p in profiles if chosen.get((p.name, setting.format)) == setting],
            tryout,
            graphs,
            climbing,
            samples,
            goal,
            precision,
        )
        for setting in sorted(set(chosen.values()))
    }
    quantised = {setting: choice.model for setting, choice in choices.items()}
    if climbing is not None and climbing.costs is not None and climbing.decision.in_float:
        layers, how = len(climbing.decision.in_float), climbing.costs.how
        warnings += (f"{layers} layers are left in float, as few as meet the goal by their time ({how})",)
    warnings += tuple(f"{s.format}: {c.reason}" for s, c in choices.items() if c.reason)
    steps.next("verify", f"verifying {len(quantised)} artifacts against float on {judged.count} samples")
    pairs = [(one, graphs.exported[one.format]) for one in quantised.values()]
    data: DataKind = "evaluation"
    if evaluation is None or (calibration is not None and _same(evaluation, calibration)):
        data = "calibration" if unseen is None else "generated"
    verified = dict(zip(quantised, verify(pairs, judged, model.run, data), strict=True))

    evidence = None
    if report is not None:
        steps.next("look", "looking at every layer for the report")
        evidence = gather(climbing, graphs, list(choices.values()), samples)
    steps.next("package", "packaging")
    work = work_of(graphs.exported["onnx"]) if "onnx" in graphs.exported else None
    elapsed = time.perf_counter() - started
    packables = _judged(profiles, chosen, verified, work, limits, elapsed)
    verdict = worst([packable.gate.verdict for packable in packables])
    kept = Path(output) if verdict != "fail" or keep_failed else None
    release, manifests = package(
        packables,
        output=kept,
        name=name,
        release_version=version,
        source=model.label,
        calibration=samples if unseen is None else None,
        described=samples if unseen is None else judged,
        classification=classification_output(outputs),
    )
    elapsed = time.perf_counter() - started
    digest = release.digest if release else None
    attempts = climbing.attempts if climbing else ()
    result = ConversionReport(
        name, version, kept, digest, tuple(manifests), elapsed, warnings, attempts, evidence
    )
    if report is not None:
        from edgewright_converters.report import write_page

        write_page(result, Path(report))
    return result


def _climbed(
    tryout: Tryout,
    graphs: FloatGraphs,
    samples: SampleSet,
    split: Sequence[Part],
    profiles: Sequence[HardwareProfile],
    settings: Mapping[tuple[str, ModelFormat], Setting],
    limits: GateLimits,
    effort: Effort,
    steps: Steps,
) -> Climb | None:
    """The decision that the ladder comes to; None for a model that has no ONNX form to decide on."""
    graph = graphs.graph
    if graph is None:
        return None
    first = min(settings.values())
    alike = [p for p in profiles if settings.get((p.name, first.format)) == first]

    def fit(part: SampleSet) -> Fit:
        return Fit(
            lambda wanted: (graph.feed(sample.inputs) for sample in part.spread(wanted)),
            min(part.count, CALIBRATION_SAMPLES[effort]),
        )

    return climb(
        graph,
        fit(samples),
        [fit(part.fitted) for part in split],
        partial(_tried, tryout, graphs, first),
        Goal(limits.max_drop, limits.min_sqnr_db),
        effort,
        samples.where,
        lambda rung: steps.next(rung.name, f"{rung.name}: {rung.what}"),
        lambda decision: layer_costs(
            decision.graph, _quantise(decision, graphs.tflite, first), alike, samples.head(1)[0].inputs
        ),
        symmetric=all(setting.symmetric for setting in settings.values()),
    )


def _tried(tryout: Tryout, graphs: FloatGraphs, setting: Setting, decisions: Sequence[Decision]) -> Trial:
    candidates = [_quantise(decision, graphs.tflite, setting) for decision in decisions]
    return tryout.run(candidates, graphs.exported[setting.format])


def _chosen(
    setting: Setting,
    profiles: Sequence[HardwareProfile],
    tryout: Tryout,
    graphs: FloatGraphs,
    climbing: Climb | None,
    samples: SampleSet,
    goal: Goal,
    precision: Precision | Literal["auto"],
) -> Choice:
    """The model of a setting: static INT8 or, where that loses, what the alternatives come to."""
    exported = graphs.exported[setting.format]
    if precision != "auto" and precision != "int8":
        return Choice(quantise_as(exported, precision), None, ())
    if climbing is None:
        ranges = own_ranges(exported, (sample.inputs for sample in samples))
        static = quantise_tflite(exported, ranges)
    else:
        static = _quantise(climbing.decision, graphs.tflite, setting)
    if precision == "int8":
        return Choice(static, None, ())
    budgets = [p.budgets.artifact_bytes for p in profiles if p.budgets.artifact_bytes is not None]
    others = {other.precision: None for p in profiles for other in alternatives(exported, p)}
    variants = {}
    if climbing is not None:
        layers_only = replace(climbing.decision, layers_only=True)
        variants["INT8 in convolutions and matrix products alone"] = partial(
            _quantise, layers_only, graphs.tflite, setting
        )
    return choose(
        static,
        variants,
        exported,
        tuple(others),
        lambda candidate: tryout.run([candidate], exported),
        goal,
        same_architecture=all(p.soc.isa == platform.machine() for p in profiles),
        here=all(p.accelerator_for(setting.format) is None for p in profiles),
        budget_bytes=min(budgets, default=None),
    )


def _quantise(decision: Decision, tflite: TfliteTarget | None, setting: Setting) -> QuantisedModel:
    if setting.format == "onnx":
        return as_onnx(decision, setting.activation, symmetric=setting.symmetric)
    assert tflite is not None
    return as_tflite(decision, tflite)


def _check_labels(samples: SampleSet, outputs: Mapping[str, Array]) -> None:
    if samples.labels is None:
        return
    scores = classification_output(outputs)
    if scores is None:
        problem = "has labels, but the model's output is no single score a class"
        raise DataError(problem, where=samples.where, remedy="leave 'y' out")
    classes = outputs[scores].shape[1]
    if samples.classes is not None and len(samples.classes) != classes:
        problem = f"has {len(samples.classes)} class folders, but the model scores {classes} classes"
        raise DataError(problem, where=samples.where, remedy="make a folder for each, or lay the images flat")
    if int(samples.labels.max()) >= classes:
        problem = f"label {int(samples.labels.max())} is out of range: the model scores {classes} classes"
        raise DataError(problem, where=samples.where)


def _same(one: Data, other: Data) -> bool:
    """Whether two data sets are one: then a second name for it proves no more."""
    if isinstance(one, (str, Path)) and isinstance(other, (str, Path)):
        return Path(one).resolve() == Path(other).resolve()
    return one is other


def _judged(
    profiles: Sequence[HardwareProfile],
    chosen: Mapping[tuple[str, ModelFormat], Setting],
    verified: Mapping[Setting, VerifiedModel],
    work: Work | None,
    limits: GateLimits,
    conversion_s: float,
) -> list[Packable]:
    by_name = {profile.name: profile for profile in profiles}
    packables = []
    for (name, model_format), setting in chosen.items():
        profile, one = by_name[name], verified[setting]
        predicted = predicted_latencies(profile, model_format, work)
        own = work.held_in(one.model.precision) if work else None
        report = gate(one, profile, limits, work=own, predicted=predicted, conversion_s=conversion_s)
        packables.append(Packable(name, one, report, predicted, work.macs if work else None))
    return packables
