"""Which calibration samples a decision is fitted on, and which it is judged on: never the same.

A repair that follows the noise of the samples it was fitted on looks better on them and is worse in the field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgewright_converters.calibration import Sample, SampleSet

MOST = 64
"""Samples judged on: the standard error of a noise measured on them is under a tenth of a decibel for most
models, and executing more would take longer than the repairs."""
SHARE = 4
"""One in so many is kept for judging, up to `MOST`. A sweep holds at most half of a hundred images anyway."""
ENOUGH = 16
"""Fewer than these judge too little: then each half judges what was fitted on the other, and none is lost."""


@dataclass(frozen=True)
class Part:
    """Samples to fit a decision on, and those that judge it."""

    fitted: SampleSet
    judged: SampleSet


def parts(samples: SampleSet) -> tuple[Part, ...]:
    """One part; two that judge each other's where samples are few; a single sample judges itself.

    Samples are drawn by chance, the same at each call: data often repeats itself in some order.
    """
    order = np.random.default_rng(0).permutation(samples.count)
    held = min(MOST, samples.count // SHARE)
    if held >= ENOUGH:
        return (Part(_some(samples, order[held:]), _some(samples, order[:held])),)
    if samples.count == 1:
        return (Part(samples, samples),)
    one, other = _some(samples, order[::2]), _some(samples, order[1::2])
    return Part(one, other), Part(other, one)


def _some(samples: SampleSet, indices: np.ndarray) -> SampleSet:
    chosen = frozenset(indices.tolist())

    def read() -> Iterator[Sample]:
        return (sample for index, sample in enumerate(samples) if index in chosen)

    labels = None if samples.labels is None else samples.labels[sorted(chosen)]
    return replace(samples, count=len(chosen), labels=labels, read=read)
