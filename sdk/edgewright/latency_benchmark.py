"""Latency measured on this host: of one model, or of several interleaved so that noise strikes all alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.artifact.manifest import LatencyFigure, Precision, TensorSpec
from edgewright.runtime.model import Array, Model

TURN = 8
"""Inferences of one model before the next has its turn. One more goes before them uncounted: it finds the caches
full of the others, which no inference in use does but the first. In turns of one, EfficientNet-Lite0 in INT8 has
2.0 times float's speed in ONNX Runtime, in these turns 2.3 times, and timed alone 2.5 times."""


@dataclass(frozen=True)
class Benchmark:
    """Seconds for one inference in the runtime, raw input to raw output."""

    where: str
    runtime: str
    precision: Precision
    threads: int
    samples: int
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    how: str = "measured on host"

    def figure(self) -> LatencyFigure:
        """The same as the manifest records it."""
        return LatencyFigure(
            how="measured on host",
            where=self.where,
            runtime=self.runtime,
            precision=self.precision,
            threads=self.threads,
            p50_s=self.p50_s,
            p99_s=self.p99_s,
            samples=self.samples,
        )


def benchmark(model: Model, *, seconds: float = 2.0) -> Benchmark:
    """Measure one model for about `seconds`, after a warm-up."""
    return benchmark_interleaved([model], seconds=seconds)[0]


def benchmark_interleaved(models: Sequence[Model], *, seconds: float = 2.0) -> list[Benchmark]:
    """Measure several models in turns of a few inferences each, for about `seconds` a model.

    A ratio of two results compares like with like: both met the same clock speeds and the same neighbours.
    """
    times = interleaved_seconds(models, seconds=seconds)
    where = host_processor()
    return [summary(model, samples, where) for model, samples in zip(models, times, strict=True)]


def interleaved_seconds(models: Sequence[Model], *, seconds: float = 2.0) -> list[list[float]]:
    """The single times behind `benchmark_interleaved`, one list a model, in the order in which they were taken."""
    feeds = [{spec.name: noise(spec) for spec in model.inputs} for model in models]
    for model, feed in zip(models, feeds, strict=True):
        for _ in range(5):
            model.run_raw(feed)
    times: list[list[float]] = [[] for _ in models]
    spent = [0.0 for _ in models]
    # At least 20 samples each; past that the time decides, so that a slow model does not take minutes.
    while len(times[0]) < 20 or (max(spent) < seconds and len(times[0]) < 100_000):
        for i, (model, feed) in enumerate(zip(models, feeds, strict=True)):
            if len(models) > 1:
                model.run_raw(feed)
            for _ in range(TURN):
                start = time.perf_counter()
                model.run_raw(feed)
                elapsed = time.perf_counter() - start
                times[i].append(elapsed)
                spent[i] += elapsed
    return times


def host_processor() -> str:
    """This host's processor, as it names itself."""
    from edgewright_profiles.detect import detect

    return detect().processor or "unknown processor"


def noise(spec: TensorSpec) -> Array:
    """A raw input that any model takes, the same every time."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(spec.dtype)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(spec.shape).astype(dtype)
    # Without a scale they are ids, flags or counts, of which 0 and 1 are valid for every model.
    return rng.integers(0, 100 if spec.quantisation else 2, spec.shape).astype(dtype)


def summary(model: Model, samples: list[float], where: str) -> Benchmark:
    """What the single times of a model come to."""
    p50, p90, p99 = (float(value) for value in np.percentile(samples, [50, 90, 99]))
    integer = any(spec.dtype in ("int8", "uint8") for spec in (*model.inputs, *model.outputs))
    precision: Precision = model.manifest.precision if model.manifest else ("int8" if integer else "float32")
    return Benchmark(
        where=where,
        runtime=model.runtime,
        precision=precision,
        threads=model.threads,
        samples=len(samples),
        mean_s=float(np.mean(samples)),
        p50_s=p50,
        p90_s=p90,
        p99_s=p99,
    )
