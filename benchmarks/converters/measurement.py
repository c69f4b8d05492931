"""One model through all tools: prepared once, quantised by each, executed and timed by one evaluator."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.converters.cache import PreparedModel
from benchmarks.converters.child import StepFailedError, Usage, run_step
from benchmarks.converters.comparison import ratio
from benchmarks.converters.environments import environment_python
from benchmarks.converters.models import QUICK_CALIBRATION, QUICK_EVALUATION, BenchmarkModel
from benchmarks.converters.results import AgainstOurs, ModelResult, Row
from benchmarks.converters.tools import OURS, PEERS, SUFFIX, Runtime, Variant
from edgewright_converters.comparison import sqnr_db
from edgewright_converters.statistics import paired_difference_of, proportion

Array = NDArray[Any]
Say = Callable[[str], None]
ROUNDS, ROUND_SECONDS = 9, 0.5
QUICK_ROUNDS, QUICK_ROUND_SECONDS = 3, 0.05


@dataclass(frozen=True)
class Made:
    """An artifact that a tool made and the evaluator could execute."""

    variant: Variant
    path: Path
    usage: Usage
    scores: Array

    @property
    def target(self) -> str:
        return f"{self.variant.runtime}:{self.path}"


@dataclass(frozen=True)
class Judged:
    """What artifacts are judged by: the float scores, and the classes that count as right."""

    float_scores: Array
    right: Array
    labelled: bool

    def hits(self, scores: Array) -> NDArray[np.bool_]:
        return np.asarray(scores.argmax(1) == self.right)


def measure(model: BenchmarkModel, variants: Sequence[Variant], quick: bool, say: Say) -> ModelResult:
    """Raises `StepFailedError` where the model itself cannot be prepared; a tool's failure is a row."""
    prepared = PreparedModel(model.name, quick)
    say(f"{model.name}: preparing: train, export, float scores")
    _prepare(model, prepared)
    made: list[Made] = []
    failures: dict[str, str] = {}
    ours = functools.cache(lambda: _ours(model, prepared))
    for variant in variants:
        if not variant.suits(model):
            continue
        say(f"{model.name}: {variant.key}: converting and executing")
        try:
            made.append(_make(model, prepared, variant, ours))
        except StepFailedError as failure:
            failures[variant.key] = str(failure)
            say(f"{model.name}: {variant.key}: failed, {failure}")
    say(f"{model.name}: timing {len(made)} artifacts")
    floats = {r: _float_target(prepared, r) for r in dict.fromkeys(m.variant.runtime for m in made)}
    times = _times(prepared, [*floats.values(), *(m.target for m in made)])
    return _result(model, prepared, variants, made, failures, floats, times)


def own_python_path() -> list[Path]:
    """What a child needs to import this benchmark and Edgewright as this process has them."""
    names = ("benchmarks", "edgewright", "edgewright_profiles", "edgewright_converters", "edgewright_demo")
    origins = [spec.origin for spec in map(importlib.util.find_spec, names) if spec and spec.origin]
    return list(dict.fromkeys(Path(origin).parents[1] for origin in origins))


def _prepare(model: BenchmarkModel, prepared: PreparedModel) -> None:
    calibration = QUICK_CALIBRATION if prepared.quick else model.calibration_samples
    evaluation = QUICK_EVALUATION if prepared.quick else model.evaluation_samples
    log = prepared.folder / "prepare.log"
    if model.data == "photos" and not prepared.evaluation.exists():
        script = Path(__file__).with_name("photos.py")
        counts = (str(calibration), str(evaluation))
        arguments = (prepared.calibration, counts[0], prepared.evaluation, counts[1])
        run_step([environment_python("photos"), script, *arguments], log)
    _run_own(sys.executable, "prepare", [model.name, *_flags(prepared)], log)


def _ours(model: BenchmarkModel, prepared: PreparedModel) -> Usage:
    """One conversion to both formats, as a user gets it."""
    output = prepared.artifacts / OURS
    for suffix in SUFFIX.values():
        output.with_suffix(suffix).unlink(missing_ok=True)
    log = output.with_suffix(".log")
    return _run_own(sys.executable, "ours", [model.name, output, *_flags(prepared)], log)


def _make(
    model: BenchmarkModel, prepared: PreparedModel, variant: Variant, ours: Callable[[], Usage]
) -> Made:
    stem = variant.key.replace(" ", "-")
    path = prepared.artifacts / f"{stem}{SUFFIX[variant.runtime]}"
    log = prepared.artifacts / f"{stem}.log"
    if variant.tool == OURS:
        path = prepared.artifacts / f"{OURS}{SUFFIX[variant.runtime]}"
        usage = ours()
    else:
        path.unlink(missing_ok=True)
        source = prepared.tflite if variant.runtime == "tflite" else prepared.onnx
        family = ["transformer"] if model.transformer else []
        script = PEERS / f"{variant.script}.py"
        command = [environment_python(variant.environment), script, source, prepared.calibration, path]
        usage = run_step([*command, variant.name, *family], log)
    if not path.exists():
        raise StepFailedError("ended without an error and without an artifact")
    scores_path = path.with_name(f"{stem}.scores.npy")
    target = f"{variant.runtime}:{path}"
    _run_own(
        environment_python("runtimes"),
        "execution",
        ["outputs", prepared.evaluation, scores_path, target],
        prepared.artifacts / f"{stem}.execution.log",
    )
    scores = np.load(scores_path)
    if not np.isfinite(scores).all():
        raise StepFailedError("its artifact's outputs are not finite")
    return Made(variant, path, usage, scores)


def _times(prepared: PreparedModel, targets: Sequence[str]) -> dict[str, Any]:
    rounds, seconds = (QUICK_ROUNDS, QUICK_ROUND_SECONDS) if prepared.quick else (ROUNDS, ROUND_SECONDS)
    path = prepared.artifacts / "latency.json"
    log = prepared.artifacts / "latency.log"
    arguments: list[str | Path] = ["latency", str(rounds), str(seconds), path, *targets]
    _run_own(environment_python("runtimes"), "execution", arguments, log)
    times: dict[str, Any] = json.loads(path.read_text())
    return times


def _result(
    model: BenchmarkModel,
    prepared: PreparedModel,
    variants: Sequence[Variant],
    made: Sequence[Made],
    failures: dict[str, str],
    floats: dict[Runtime, str],
    times: dict[str, Any],
) -> ModelResult:
    float_scores = np.load(prepared.scores)
    with np.load(prepared.evaluation) as arrays:
        labels = arrays.get("y")
    right = float_scores.argmax(1) if labels is None else labels
    judged = Judged(float_scores, right, labels is not None)
    ours = {m.variant.runtime: m for m in made if m.variant.tool == OURS}
    found = {
        m.variant.key: _row(m, judged, times, floats, ours.get(m.variant.runtime) or ours.get("onnx"))
        for m in made
    }
    rows = tuple(
        found.get(v.key) or Row(tool=v.tool, variant=v.name, failure=failures[v.key])
        for v in variants
        if v.key in found or v.key in failures
    )
    hits = judged.hits(float_scores)
    names = {runtime: times[target]["runtime"].split()[0] for runtime, target in floats.items()}
    return ModelResult(
        name=model.name,
        title=model.title,
        calibration_samples=QUICK_CALIBRATION if prepared.quick else model.calibration_samples,
        evaluation_samples=len(float_scores),
        float_accuracy=proportion(int(hits.sum()), len(hits)) if judged.labelled else None,
        float_latency_s={names[r]: float(np.median(times[t]["seconds"])) for r, t in floats.items()},
        float_bytes={names[r]: Path(t.partition(":")[2]).stat().st_size for r, t in floats.items()},
        rows=rows,
    )


def _row(
    made: Made, judged: Judged, times: dict[str, Any], floats: dict[Runtime, str], ours: Made | None
) -> Row:
    hits, count = judged.hits(made.scores), len(made.scores)
    same = int(np.sum(made.scores.argmax(1) == judged.float_scores.argmax(1)))
    timed = times[made.target]
    against = None
    if ours is not None and made.variant.tool != OURS:
        against = AgainstOurs(
            ours=ours.variant.key,
            accuracy=paired_difference_of(hits, judged.hits(ours.scores)),
            time=ratio(times[ours.target]["seconds"], timed["seconds"]),
        )
    return Row(
        tool=made.variant.tool,
        variant=made.variant.name,
        runtime=timed["runtime"],
        takes=timed["takes"],
        accuracy=proportion(int(hits.sum()), count) if judged.labelled else None,
        change=paired_difference_of(judged.hits(judged.float_scores), hits) if judged.labelled else None,
        agreement=proportion(same, count),
        sqnr_db=sqnr_db(judged.float_scores, made.scores),
        latency_s=float(np.median(timed["seconds"])),
        speed_up=ratio(times[floats[made.variant.runtime]]["seconds"], timed["seconds"]),
        # OpenVINO keeps the weights in a second file.
        artifact_bytes=sum(
            p.stat().st_size for p in (made.path, made.path.with_suffix(".bin")) if p.exists()
        ),
        convert_seconds=made.usage.seconds,
        peak_rss_bytes=made.usage.peak_rss_bytes,
        against_ours=against,
    )


def _float_target(prepared: PreparedModel, runtime: Runtime) -> str:
    return f"{runtime}:{prepared.tflite if runtime == 'tflite' else prepared.onnx}"


def _flags(prepared: PreparedModel) -> list[str]:
    return ["--quick"] if prepared.quick else []


def _run_own(python: str | Path, step: str, arguments: Sequence[str | Path], log: Path) -> Usage:
    command = [python, "-m", f"benchmarks.converters.{step}", *arguments]
    return run_step(command, log, python_path=own_python_path())
