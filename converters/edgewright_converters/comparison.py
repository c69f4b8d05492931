"""`Comparison`: what is summed, sample by sample, while a quantised model is compared with the float one.

It holds counts and sums alone, so that its size does not depend on the data set's, and gives an
`AccuracyReport` from them. Who executes the models is no matter of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import AccuracyReport, DataKind
from edgewright_converters.statistics import paired_difference, proportion

Array = NDArray[Any]
MAX_DB = 200.0
"""SQNR is given between -200 and 200 decibels: noise of exactly nought has no logarithm."""


@dataclass
class _Sums:
    """Of one output: squares of the float values, of the quantised ones, of their difference, and products."""

    signal: float = 0.0
    actual: float = 0.0
    noise: float = 0.0
    product: float = 0.0

    def add(self, reference: Array, actual: Array) -> None:
        a, b = reference.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
        difference = a - b
        self.signal += float(a @ a)
        self.actual += float(b @ b)
        self.noise += float(difference @ difference)
        self.product += float(a @ b)

    def sqnr_db(self) -> float:
        return decibels(self.signal, self.noise)

    def cosine(self) -> float:
        if self.noise == 0.0:
            return 1.0
        norm = math.sqrt(self.signal) * math.sqrt(self.actual)
        cosine = self.product / norm if norm > 0.0 else 0.0
        # Outputs with a NaN or an infinity point nowhere.
        return min(1.0, max(-1.0, cosine)) if math.isfinite(cosine) else 0.0


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers in decibels, between the least and the most that are given."""
    if noise == 0.0:
        return MAX_DB
    if signal == 0.0 or not math.isfinite(noise):
        return -MAX_DB
    return min(MAX_DB, max(-MAX_DB, 10.0 * math.log10(signal / noise)))


def sqnr_db(reference: Array, actual: Array) -> float:
    """Signal to quantisation noise ratio of an output, decibels."""
    sums = _Sums()
    sums.add(reference, actual)
    return sums.sqnr_db()


@dataclass
class Comparison:
    """The running comparison of one quantised model; `classification` names the output with the scores."""

    classification: str | None
    samples: int = 0
    agreed: int = 0
    right: dict[tuple[bool, bool], int] = field(default_factory=dict)
    """Labelled samples by (right by the float model, right by the quantised one)."""
    _sums: dict[str, _Sums] = field(default_factory=dict)

    def add(self, reference: Mapping[str, Array], actual: Mapping[str, Array], label: int | None) -> None:
        """Take in one sample: the float outputs, the quantised model's as real values, and the class if known."""
        self.samples += 1
        for name, array in actual.items():
            self._sums.setdefault(name, _Sums()).add(reference[name], array)
        if self.classification is None:
            return
        expected = int(reference[self.classification].argmax())
        got = int(actual[self.classification].argmax())
        self.agreed += expected == got
        if label is not None:
            pair = (expected == label, got == label)
            self.right[pair] = self.right.get(pair, 0) + 1

    def report(self, executed_by: str, data: DataKind) -> AccuracyReport:
        """The figures so far, each share with its interval."""
        both, lost, gained, neither = (
            self.right.get(pair, 0) for pair in ((True, True), (True, False), (False, True), (False, False))
        )
        labelled = both + lost + gained + neither
        return AccuracyReport(
            executed_by=executed_by,
            data=data,
            samples=self.samples,
            sqnr_db={name: sums.sqnr_db() for name, sums in self._sums.items()},
            cosine={name: sums.cosine() for name, sums in self._sums.items()},
            # Noise falls into few classes, by margins unlike those of real data.
            agreement=proportion(self.agreed, self.samples)
            if self.classification and data != "generated"
            else None,
            float_accuracy=proportion(both + lost, labelled) if labelled else None,
            artifact_accuracy=proportion(both + gained, labelled) if labelled else None,
            change=paired_difference(both=both, lost=lost, gained=gained, neither=neither)
            if labelled
            else None,
        )


def classification_output(outputs: Mapping[str, Array]) -> str | None:
    """The output that holds one score a class: the only one, two axes, more than one column."""
    if len(outputs) != 1:
        return None
    ((name, array),) = outputs.items()
    is_scores = array.ndim == 2 and array.shape[1] > 1 and np.issubdtype(array.dtype, np.floating)
    return name if is_scores else None
