"""`Sketcher`: adds inferences of one model up to a `DataSketch`; the converter and the device use the same
one.

It sees an artifact's raw arrays. Of a large input it looks at about a thousand evenly spaced elements a
channel, which bounds its cost: tens of microseconds an inference. `glimpse` takes those elements out, so that
a device can do that much in the inference and the rest elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import TensorSpec
from edgewright.prediction import probabilities
from edgewright.runtime.quantised_io import dequantise
from edgewright.telemetry.sketch import CLASS_BINS, CONFIDENCE_EDGES, ChannelSketch, DataSketch, Moments

Array = NDArray[Any]
Glimpse = tuple[list[Array], Array | None]
"""Of one inference: a few elements of each input, by channel and element; the raw scores."""

MOST_CHANNELS = 4
"""An input with more has its channels looked at together: a few hundred bytes do not hold statistics of
each."""
ELEMENTS = 1024
"""Looked at in a channel of a sample."""
MOST = 1e30
"""Elements are cut off here, so that no sum of squares overflows."""
_EDGES = np.array(CONFIDENCE_EDGES)


class Sketcher:
    """Sums of one model's inferences. For one thread, but for `glimpse`, which changes nothing."""

    def __init__(
        self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], classification: str | None
    ) -> None:
        """`classification` names the output with the scores, None where there is none."""
        self._inputs = inputs
        self._axes = [_channel_axis(spec) for spec in inputs]
        names = [spec.name for spec in outputs]
        self._scores_index = names.index(classification) if classification in names else -1
        scores = outputs[self._scores_index] if classification in names else None
        # A shape that the file leaves open (nought) says nothing about classes.
        self._scores = scores if scores is not None and scores.shape and scores.shape[-1] > 1 else None
        self._reset()

    def _reset(self) -> None:
        self._samples = 0
        classes = 0 if self._scores is None else min(CLASS_BINS, self._scores.shape[-1])
        self._classes = np.zeros(classes, np.int64)
        self._confidence = np.zeros(len(CONFIDENCE_EDGES) + 1 if classes else 0, np.int64)
        # Per input: sums and sums of squares of (level, spread), each by channel.
        self._sums: list[Array | None] = [None] * len(self._inputs)

    def glimpse(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Glimpse:
        """What `add` needs of one inference, as copies; the arrays come in the order of the
        specifications."""
        few = [_few_elements(array, axis) for array, axis in zip(inputs, self._axes, strict=True)]
        return few, None if self._scores is None else outputs[self._scores_index].copy()

    def add(self, glimpse: Glimpse) -> None:
        """Take one inference in. A NaN counts as nought, an infinity as the greatest value there is room
        for."""
        elements, scores = glimpse
        self._samples += 1
        for index, statistics in enumerate(self.statistics(elements)):
            pair = np.stack([statistics, statistics**2])
            total = self._sums[index]
            self._sums[index] = pair if total is None else total + pair
        shares = self.shares(scores)
        if shares is not None:
            top = int(shares.argmax())
            self._classes[top % CLASS_BINS] += 1
            self._confidence[np.searchsorted(_EDGES, min(shares[top], 1.0), side="left")] += 1

    def statistics(self, elements: Sequence[Array]) -> list[Array]:
        """Of each input, from its elements in a glimpse: level and spread, each by channel."""
        reals = [_real(few, spec) for spec, few in zip(self._inputs, elements, strict=True)]
        return [np.stack([real.mean(axis=1), real.std(axis=1)]) for real in reals]

    def shares(self, scores: Array | None) -> Array | None:
        """Probabilities of the classes, from the scores in a glimpse; None for what is no classifier."""
        if self._scores is None or scores is None:
            return None
        return probabilities(_real(scores, self._scores).reshape(-1, scores.shape[-1])[0])

    def take(self) -> DataSketch | None:
        """The sketch since the last call, which starts a new one; None without a sample."""
        if self._samples == 0:
            return None
        sketch = DataSketch(
            samples=self._samples,
            classes=tuple(self._classes.tolist()),
            confidence=tuple(self._confidence.tolist()),
            inputs={
                spec.name: _channels(sums, self._samples)
                for spec, sums in zip(self._inputs, self._sums, strict=True)
                if sums is not None
            },
        )
        self._reset()
        return sketch


def _channel_axis(spec: TensorSpec) -> int | None:
    """Where the artifact holds the channels: axis 1 of the source model, where there are few of them."""
    if len(spec.shape) < 2:
        return None
    axis = 1 if spec.permutation is None else spec.permutation.index(1)
    return axis if 1 <= spec.shape[axis] <= MOST_CHANNELS else None


def _few_elements(array: Array, axis: int | None) -> Array:
    """Evenly spaced elements as [channel, element], copied."""
    if array.size == 0:
        return np.zeros((1, 1), array.dtype)
    if axis is None:
        flat = array.reshape(1, -1)
    elif axis == array.ndim - 1:  # by a view, as a copy of a photo would cost more than all else
        flat = array.reshape(-1, array.shape[axis]).T
    else:
        flat = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    # An odd step does not meet the same columns of an image in every row.
    return flat[:, :: flat.shape[1] // ELEMENTS | 1].copy()


def _real(raw: Array, spec: TensorSpec) -> Array:
    return np.clip(np.nan_to_num(dequantise(raw, spec).astype(np.float64)), -MOST, MOST)


def _channels(sums: Array, samples: int) -> tuple[ChannelSketch, ...]:
    mean, square = sums / samples
    std = np.sqrt(np.maximum(square - mean**2, 0.0))
    return tuple(
        ChannelSketch(level=_moments(mean[0, c], std[0, c]), spread=_moments(mean[1, c], std[1, c]))
        for c in range(mean.shape[1])
    )


def _moments(mean: float, std: float) -> Moments:
    # Seven digits: more would be noise, and bytes.
    return Moments(mean=float(f"{mean:.7g}"), std=float(f"{std:.7g}"))
