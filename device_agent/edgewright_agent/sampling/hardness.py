"""How hard an inference was for the model: pure, from its arrays to a reason for keeping it, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import ArtifactManifest
from edgewright.field_sample import Reason
from edgewright.telemetry.sketch import DataSketch
from edgewright.telemetry.sketcher import Sketcher
from edgewright_agent.sampling_config import SamplingConfig

Array = NDArray[Any]


@dataclass(frozen=True)
class Traits:
    """What is seen of an inference. None: the model is no classifier, or has no reference."""

    top: int | None = None
    """The class with the greatest score."""
    confidence: float | None = None
    """Its probability."""
    margin: float | None = None
    """From it to the next."""
    classes: int | None = None
    """How many there are."""
    shift: float | None = None
    """Greatest distance of a channel's level or spread from the reference's mean, in its standard deviations."""


class Examiner:
    """Of one model."""

    def __init__(self, manifest: ArtifactManifest) -> None:
        scores = manifest.postprocessing.output if manifest.postprocessing else None
        self._sketcher = Sketcher(manifest.inputs, manifest.outputs, scores)
        reference = manifest.drift_reference
        self._reference = _reference(manifest, reference.sketch) if reference else None

    def traits(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Traits:
        """Of one inference's raw arrays, in the manifest's order."""
        elements, scores = self._sketcher.glimpse(inputs, outputs)
        shares = self._sketcher.shares(scores)
        found = Traits(shift=self._shift(elements))
        if shares is None:
            return found
        top = int(shares.argmax())
        second, first = np.partition(shares, -2)[-2:].clip(0.0, 1.0).tolist()
        return Traits(top, first, first - second, shares.size, found.shift)

    def _shift(self, elements: list[Array]) -> float | None:
        if self._reference is None:
            return None
        distances = [
            np.abs(statistics - mean) / std
            for statistics, (mean, std) in zip(
                self._sketcher.statistics(elements), self._reference, strict=True
            )
            if mean.shape == statistics.shape
        ]
        return float(max((distance.max() for distance in distances), default=0.0))


def reason_for(traits: Traits, config: SamplingConfig) -> Reason | None:
    """Why the inference was hard; the first of the reasons that holds."""
    if traits.confidence is not None and traits.confidence < config.confidence_below:
        return "low-confidence"
    if traits.margin is not None and traits.margin < config.margin_below:
        return "low-margin"
    if config.drifted_above is not None and traits.shift is not None and traits.shift > config.drifted_above:
        return "drifted-input"
    return None


def _reference(manifest: ArtifactManifest, sketch: DataSketch) -> list[tuple[Array, Array]]:
    """Mean and standard deviation of (level, spread) by channel, of each input in the manifest's order."""
    found = []
    for spec in manifest.inputs:
        channels = sketch.inputs.get(spec.name, ())
        moments = [[c.level for c in channels], [c.spread for c in channels]]
        mean = np.array([[m.mean for m in row] for row in moments])
        std = np.array([[m.std for m in row] for row in moments])
        # Data in which all samples are alike says nothing about what is far from it.
        found.append((mean, np.where(std > 0, std, np.inf)))
    return found
