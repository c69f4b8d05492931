"""`LabelledSample`: what the two models are compared on, from the held-out set or from the field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgewright.artifact.manifest import ArtifactManifest
from edgewright.errors import DataError
from edgewright_converters.batches import Data
from edgewright_converters.calibration import load_samples


@dataclass(frozen=True)
class LabelledSample:
    """Inputs by the source model's names (float, its axis order, first axis 1) with the index of their class."""

    inputs: Mapping[str, NDArray[Any]]
    label: int
    groups: Mapping[str, str] = field(default_factory=dict)
    """Such as `profile: raspberry-pi-5`, `site: berlin`: each key is a way to look at the samples in parts."""
    probability: float | None = None
    """That an input like this one was selected, above 0, at most 1: hard examples have a greater one. None: not
    known. Where any sample's is not, all count alike."""


def held_out_samples(data: Data, manifest: ArtifactManifest) -> Iterable[LabelledSample]:
    """A labelled evaluation set in any form that `convert` takes, for models with the inputs of `manifest`.

    It is read through once here, to check it, and anew at each iteration. Raises `DataError`.
    """
    samples = load_samples(data, [spec.name for spec in manifest.inputs])
    if not samples.has_labels:
        raise DataError(
            "has no labels, so that nothing can be right or wrong on it",
            where=samples.where,
            remedy="give an evaluation set with labels ('y')",
        )

    class _Samples:
        def __iter__(self) -> Iterator[LabelledSample]:
            for sample in samples:
                assert sample.label is not None
                yield LabelledSample(sample.inputs, sample.label)

    return _Samples()
