"""`convert`: the whole conversion, `export → optimise → calibrate → quantise → verify → gate → package`.

Work is shared where profiles share it: a graph is exported, calibrated and quantised once for every
distinct setting, however many profiles ask for it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from edgewright.artifact.manifest import ArtifactManifest, LatencyFigure, ModelFormat, Precision, Verdict
from edgewright.errors import ConversionError, DataError
from edgewright_converters.accuracy_gate import GateLimits
from edgewright_converters.batches import Data
from edgewright_converters.calibrate import calibrate
from edgewright_converters.calibration import SampleSet, load_samples, unexercised
from edgewright_converters.comparison import classification_output
from edgewright_converters.cost import operator_work
from edgewright_converters.export import ExportedGraph, export
from edgewright_converters.gate import gate, worst
from edgewright_converters.optimise import optimise
from edgewright_converters.package import Packable, package
from edgewright_converters.quantise import QuantisedModel, quantise
from edgewright_converters.repeatability import check_repeatable
from edgewright_converters.source import SourceModel, check_takes, load_source
from edgewright_converters.verify import VerifiedModel, verify
from edgewright_profiles import HardwareProfile, load_profile
from edgewright_profiles.cost import OperatorWork, predict_latency

Array = NDArray[Any]
OnStep = Callable[[int, int, str], None]
"""Told before each step: how many are done, how many there are, and what comes now."""


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
    calibration: Data,
    profile: str | Sequence[str],
    output: str | Path,
    evaluation: Data | None = None,
    weights: str | Path | None = None,
    format: ModelFormat | Sequence[ModelFormat] | None = None,  # noqa: A002 - the word of the command
    name: str | None = None,
    version: str = "1.0.0",
    max_drop: float = 1.0,
    min_sqnr: float | None = None,
    keep_failed: bool = False,
    on_step: OnStep | None = None,
) -> ConversionReport:
    """Convert a model to INT8 artifacts, one per profile and format, verified as their runtime executes them.

    `source` is an `nn.Module`, `module:function`, a `.pt2`, a TorchScript `.pt` or an `.onnx` file; `weights` a
    state dict for a model that code builds. Data is a path, `module:function`, arrays by input name (`x` where
    there is one input, `y` the labels), a loader or a function that yields batches. Without `evaluation` the
    figures are from the calibration data, and say so.

    The report's `verdict` is the gate's: accuracy may drop by `max_drop` points, each output's SQNR must reach
    `min_sqnr` decibels where given, and the profile's budgets hold. After a `fail` nothing is written unless
    `keep_failed`. Raises `EdgewrightError` of the kind that fits, with nothing written.
    """
    limits = GateLimits(max_drop, min_sqnr)
    if not (0 <= max_drop <= 100 and (min_sqnr is None or math.isfinite(min_sqnr))):
        raise ConversionError(
            f"max_drop is {max_drop:g} points and min_sqnr {min_sqnr} dB",
            remedy="give a drop from 0 to 100, and a finite number of decibels",
        )
    started = time.perf_counter()
    profiles = [load_profile(p) for p in ([profile] if isinstance(profile, str) else profile)]
    model = load_source(source, weights)
    wanted = _formats(model, profiles, format)
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", model.name).strip("-._") or "model"
    settings = _settings(profiles, wanted)
    steps = _Steps(
        on_step, total=3 + 3 * len({s[0] for s in settings.values()}) + len(set(settings.values()))
    )

    steps.next("reading the data")
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

    graphs: dict[ModelFormat, ExportedGraph] = {}
    quantised: dict[tuple[ModelFormat, str], QuantisedModel] = {}
    for model_format in wanted:
        steps.next(f"exporting to {model_format}")
        exported = export(model, examples, outputs, model_format)
        steps.next(f"optimising the {model_format} graph")
        graphs[model_format] = graph = optimise(exported)
        steps.next(f"calibrating the {model_format} graph on {samples.count} samples")
        stats = calibrate(graph, samples)
        for setting in sorted({s for s in settings.values() if s[0] == model_format}):
            steps.next(f"quantising to {model_format} INT8 with {setting[1]} activations")
            quantised[setting] = quantise(graph, stats, "uint8" if setting[1] == "uint8" else "int8")

    steps.next(f"verifying {len(quantised)} INT8 models against float")
    pairs = [(one, graphs[one.format]) for one in quantised.values()]
    data: Literal["evaluation", "calibration"] = "evaluation"
    if evaluation is None or _same(evaluation, calibration):
        data = "calibration"
    verified = dict(zip(quantised, verify(pairs, judged, model.run, data), strict=True))

    steps.next("packaging")
    work = _work(model, examples, outputs, graphs)
    elapsed = time.perf_counter() - started
    packables = _judged(profiles, settings, verified, work, limits, elapsed)
    verdict = worst([packable.gate.verdict for packable in packables])
    kept = Path(output) if verdict != "fail" or keep_failed else None
    release, manifests = package(
        packables,
        output=kept,
        name=name,
        release_version=version,
        source=model.label,
        calibration=samples,
        classification=classification_output(outputs),
    )
    elapsed = time.perf_counter() - started
    digest = release.digest if release else None
    return ConversionReport(name, version, kept, digest, tuple(manifests), elapsed, warnings)


class _Steps:
    """Counts the steps for whoever shows progress."""

    def __init__(self, on_step: OnStep | None, total: int) -> None:
        self._on_step, self._total, self._done = on_step, total, 0

    def next(self, what: str) -> None:
        if self._on_step is not None:
            self._on_step(self._done, self._total, what)
        self._done += 1


def _formats(
    model: SourceModel,
    profiles: Sequence[HardwareProfile],
    asked: ModelFormat | Sequence[ModelFormat] | None,
) -> tuple[ModelFormat, ...]:
    if asked is not None:
        return (asked,) if isinstance(asked, str) else tuple(dict.fromkeys(asked))
    if not profiles:
        raise ConversionError("no hardware profile is named", remedy="'edgewright profile list' shows them")
    available: dict[ModelFormat, None] = {f: None for p in profiles for f in p.formats}
    if model.onnx_path is not None:
        available.pop("tflite", None)
    return tuple(sorted(available))


def _settings(
    profiles: Sequence[HardwareProfile], wanted: Sequence[ModelFormat]
) -> dict[tuple[str, ModelFormat], tuple[ModelFormat, str]]:
    """For each artifact to make, by profile and format: what must be quantised, as (format, activations)."""
    settings: dict[tuple[str, ModelFormat], tuple[ModelFormat, str]] = {}
    for profile in profiles:
        for model_format in wanted:
            if model_format not in profile.formats:
                continue
            settings[profile.name, model_format] = (
                model_format,
                profile.runtime_for(model_format).activation_dtype,
            )
    if not settings:
        names = ", ".join(p.name for p in profiles)
        raise ConversionError(
            f"no profile of {names} takes {' or '.join(wanted)}", remedy="choose another --format"
        )
    return settings


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
    settings: Mapping[tuple[str, ModelFormat], tuple[ModelFormat, str]],
    verified: Mapping[tuple[ModelFormat, str], VerifiedModel],
    work: tuple[tuple[OperatorWork, ...], tuple[OperatorWork, ...]] | None,
    limits: GateLimits,
    conversion_s: float,
) -> list[Packable]:
    by_name = {profile.name: profile for profile in profiles}
    packables = []
    for (name, model_format), setting in settings.items():
        profile, one = by_name[name], verified[setting]
        predicted = _predicted(profile, model_format, work)
        own = work and work[1 if one.model.precision == "float32" else 0]
        report = gate(one, profile, limits, work=own, predicted=predicted, conversion_s=conversion_s)
        packables.append(Packable(name, one, report, predicted, _macs(work)))
    return packables


def _work(
    model: SourceModel,
    examples: Sequence[Mapping[str, Array]],
    outputs: Mapping[str, Array],
    graphs: Mapping[ModelFormat, ExportedGraph],
) -> tuple[tuple[OperatorWork, ...], tuple[OperatorWork, ...]] | None:
    """The work of one inference as (INT8, float32); None where the model has no ONNX form to count it on."""
    graph = graphs.get("onnx")
    if graph is None:
        try:
            graph = optimise(export(model, examples, outputs, "onnx"))
        except ConversionError:
            return None
    return operator_work(graph, 1), operator_work(graph, np.dtype(np.float32).itemsize)


def _macs(work: tuple[tuple[OperatorWork, ...], tuple[OperatorWork, ...]] | None) -> int | None:
    return sum(operator.macs for operator in work[0]) if work else None


def _predicted(
    profile: HardwareProfile,
    model_format: ModelFormat,
    work: tuple[tuple[OperatorWork, ...], tuple[OperatorWork, ...]] | None,
) -> tuple[LatencyFigure, ...]:
    if work is None:
        return ()
    runtime = profile.runtime_for(model_format)
    figures = []
    by_precision: dict[Precision, tuple[OperatorWork, ...]] = {"float32": work[1], "int8": work[0]}
    for precision, operators in by_precision.items():
        predicted = predict_latency(profile, operators, precision, threads=1)
        figures.append(
            LatencyFigure(
                how="predicted",
                where=profile.name,
                runtime=runtime.name,
                precision=precision,
                threads=1,
                p50_s=predicted.seconds,
                low_s=predicted.low_seconds,
                high_s=predicted.high_seconds,
                samples=0,
            )
        )
    return tuple(figures)
