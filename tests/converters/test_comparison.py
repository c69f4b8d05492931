from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewright_converters.comparison import Comparison, classification_output
from edgewright_converters.statistics import paired_difference, proportion


def compared(reference: NDArray[Any], actual: NDArray[Any], labels: NDArray[Any] | None) -> Any:
    comparison = Comparison(classification_output({"y": reference[:1]}))
    for i in range(len(reference)):
        label = None if labels is None else int(labels[i])
        comparison.add({"y": reference[i : i + 1]}, {"y": actual[i : i + 1]}, label)
    return comparison.report("a runtime", "evaluation")


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6), st.floats(0.01, 3), st.booleans())
def test_sums_sample_by_sample_equal_the_whole_batch(
    seed: int, samples: int, classes: int, noise: float, labelled: bool
) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((samples, classes)).astype(np.float32)
    actual = (reference + noise * rng.standard_normal((samples, classes))).astype(np.float32)
    labels = rng.integers(0, classes, samples) if labelled else None
    report = compared(reference, actual, labels)
    a, b = reference.astype(np.float64), actual.astype(np.float64)
    assert math.isclose(report.sqnr_db["y"], 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), abs_tol=1e-9)
    cosine = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
    assert math.isclose(report.cosine["y"], cosine, abs_tol=1e-12)
    expected, got = reference.argmax(1), actual.argmax(1)
    assert report.agreement == proportion(int((expected == got).sum()), samples)
    if labels is None:
        assert report.change is None
        return
    right, still = expected == labels, got == labels
    assert report.float_accuracy == proportion(int(right.sum()), samples)
    assert report.artifact_accuracy == proportion(int(still.sum()), samples)
    assert report.change == paired_difference(
        both=int((right & still).sum()),
        lost=int((right & ~still).sum()),
        gained=int((~right & still).sum()),
        neither=int((~right & ~still).sum()),
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_change_of_accuracy_is_at_most_the_share_whose_top_class_changed(seed: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((samples, 3))
    report = compared(reference, rng.standard_normal((samples, 3)), rng.integers(0, 3, samples))
    assert abs(report.change.value) <= 1 - report.agreement.value + 1e-12


def test_sqnr_of_a_tenth_of_noise_is_twenty_decibels() -> None:
    signal = np.ones((1, 100))
    assert abs(compared(signal, signal * 1.1, None).sqnr_db["y"] - 20.0) < 1e-6
    assert compared(signal, signal, None).sqnr_db["y"] == 200.0
    assert compared(signal, signal, None).cosine["y"] == 1.0


def test_outputs_that_are_not_finite_are_as_bad_as_can_be() -> None:
    report = compared(np.ones((2, 3)), np.array([[1, 1, 1], [np.nan, 1, 1]]), None)
    assert (report.sqnr_db["y"], report.cosine["y"]) == (-200.0, 0.0)
