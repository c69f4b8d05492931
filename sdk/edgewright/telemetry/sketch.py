"""`DataSketch`: what a model was given and what it answered, over many inferences, in a few hundred bytes.

Sketches of the same model merge, so that windows of a device, and devices of a fleet, add up. `drift`
compares one with the reference that the converter put into the artifact's manifest, which is the same sketch
of the data that the artifact was judged on.

Sources: the population stability index (Siddiqi 2006, "Credit Risk Scorecards") is the symmetric divergence
of Jeffreys 1946; the Jensen–Shannon distance is the root of the divergence of Lin 1991, "Divergence Measures
Based on the Shannon Entropy", a metric after Endres and Schindelin 2003; moments merge after Chan, Golub and
LeVeque 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from edgewright.contract import CONTRACT

Count = Annotated[int, Field(ge=0)]

CLASS_BINS = 32
"""Class `c` is counted in bin `c % 32`: exact up to 32 classes, and bounded beyond."""
CONFIDENCE_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
"""Upper edges of the bins of confidence, the last of which ends at 1: finer where networks put most of their
answers."""
SMOOTHING = 0.5
"""Added to each bin before shares are compared, so that an empty bin has no infinite divergence (Jeffreys'
prior)."""


class Moments(BaseModel):
    """Mean and standard deviation over samples of one number of each."""

    model_config = CONTRACT
    mean: float
    std: float = Field(ge=0, description="of the population: divided by the number of samples")


class ChannelSketch(BaseModel):
    """One channel of an input: how its samples' mean and standard deviation are spread (brightness,
    contrast)."""

    model_config = CONTRACT
    level: Moments = Field(description="of the mean over a sample's elements")
    spread: Moments = Field(description="of the standard deviation over a sample's elements")


class DataSketch(BaseModel):
    """Sums over the inferences that were looked at; real values, whatever the artifact stores."""

    model_config = CONTRACT
    samples: int = Field(gt=0)
    classes: tuple[Count, ...] = Field(
        default=(), description="samples by top class modulo 32; empty where the output is no classification"
    )
    confidence: tuple[Count, ...] = Field(
        default=(), description="samples by probability of the top class, bins as in CONFIDENCE_EDGES"
    )
    inputs: dict[str, tuple[ChannelSketch, ...]] = Field(
        default_factory=dict, description="by input; one channel for all where there are many"
    )

    @model_validator(mode="after")
    def _adds_up(self) -> DataSketch:
        for name, counts in (("classes", self.classes), ("confidence", self.confidence)):
            if counts and sum(counts) != self.samples:
                raise ValueError(f"{name}: the counts add up to {sum(counts)}, not to {self.samples}")
        return self


class Drift(BaseModel):
    """How far a sketch is from its reference. None: not to be compared."""

    model_config = CONTRACT
    samples: int = Field(gt=0, description="of the sketch")
    class_psi: float | None = Field(
        default=None, ge=0, description="population stability index of the top classes"
    )
    class_distance: float | None = Field(default=None, ge=0, le=1, description="Jensen–Shannon, base 2")
    confidence_psi: float | None = Field(default=None, ge=0)
    input_shift: float | None = Field(
        default=None,
        ge=0,
        description="greatest distance of a channel's mean level or spread from the reference's, in standard "
        "deviations of the reference over samples",
    )


def merged(first: DataSketch, second: DataSketch) -> DataSketch:
    """All the samples of both. Raises `ValueError` for sketches of different models."""
    alike = (
        len(first.classes) == len(second.classes)
        and len(first.confidence) == len(second.confidence)
        and {name: len(channels) for name, channels in first.inputs.items()}
        == {name: len(channels) for name, channels in second.inputs.items()}
    )
    if not alike:
        raise ValueError("sketches of different models do not merge")
    a, b = first.samples, second.samples
    return DataSketch(
        samples=a + b,
        classes=tuple(x + y for x, y in zip(first.classes, second.classes, strict=True)),
        confidence=tuple(x + y for x, y in zip(first.confidence, second.confidence, strict=True)),
        inputs={
            name: tuple(
                ChannelSketch(
                    level=_merged_moments(a, x.level, b, y.level),
                    spread=_merged_moments(a, x.spread, b, y.spread),
                )
                for x, y in zip(channels, second.inputs[name], strict=True)
            )
            for name, channels in first.inputs.items()
        },
    )


def drift(sketch: DataSketch, reference: DataSketch) -> Drift:
    """How far a sketch is from the reference. What only one of them holds is not compared."""
    same_classes = bool(sketch.classes) and len(sketch.classes) == len(reference.classes)
    same_bins = bool(sketch.confidence) and len(sketch.confidence) == len(reference.confidence)
    return Drift(
        samples=sketch.samples,
        class_psi=population_stability_index(sketch.classes, reference.classes) if same_classes else None,
        class_distance=jensen_shannon_distance(sketch.classes, reference.classes) if same_classes else None,
        confidence_psi=population_stability_index(sketch.confidence, reference.confidence)
        if same_bins
        else None,
        input_shift=_input_shift(sketch.inputs, reference.inputs),
    )


def population_stability_index(counts: Sequence[int], reference: Sequence[int]) -> float:
    """Sum over the bins of (p - q) ln(p / q), with p and q the smoothed shares; nought for equal shares.

    Without any drift it is about `expected_psi`, not nought.
    """
    pairs = zip(_shares(counts), _shares(reference), strict=True)
    return sum((p - q) * math.log(p / q) for p, q in pairs)


def expected_psi(bins: int, samples: int, reference_samples: int) -> float:
    """What the index comes to by chance alone: (B - 1)(1/n + 1/m), the mean of the chi-squared distribution
    that it follows without drift (Yurdakul 2018, "Statistical Properties of Population Stability Index")."""
    return (bins - 1) * (1 / samples + 1 / reference_samples)


def jensen_shannon_distance(counts: Sequence[int], reference: Sequence[int]) -> float:
    """Root of the Jensen–Shannon divergence of the smoothed shares, base 2: between 0 and 1."""
    divergence = 0.0
    for p, q in zip(_shares(counts), _shares(reference), strict=True):
        middle = (p + q) / 2
        divergence += p * math.log2(p / middle) / 2 + q * math.log2(q / middle) / 2
    return math.sqrt(min(1.0, max(0.0, divergence)))


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + SMOOTHING * len(counts)
    return [(count + SMOOTHING) / total for count in counts]


def _merged_moments(n: int, first: Moments, m: int, second: Moments) -> Moments:
    delta = second.mean - first.mean
    mean = first.mean + delta * m / (n + m)
    squares = n * first.std**2 + m * second.std**2 + delta**2 * n * m / (n + m)
    return Moments(mean=mean, std=math.sqrt(squares / (n + m)))


def _input_shift(
    inputs: Mapping[str, Sequence[ChannelSketch]], reference: Mapping[str, Sequence[ChannelSketch]]
) -> float | None:
    shifts = [
        abs(now.mean - then.mean) / then.std
        for name, channels in inputs.items()
        for channel, before in zip(channels, reference.get(name, ()), strict=False)
        for now, then in ((channel.level, before.level), (channel.spread, before.spread))
        if then.std > 0
    ]
    return max(shifts, default=None)
