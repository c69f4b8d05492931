from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewright.artifact.manifest import Quantisation, TensorSpec
from edgewright.contract import from_json, to_json
from edgewright.telemetry.sketch import (
    CLASS_BINS,
    CONFIDENCE_EDGES,
    ChannelSketch,
    DataSketch,
    Moments,
    drift,
    expected_psi,
    jensen_shannon_distance,
    merged,
    population_stability_index,
)
from edgewright.telemetry.sketcher import Sketcher

BINS = 4
counts = st.lists(st.integers(0, 500), min_size=BINS, max_size=BINS).filter(any)
moments = st.builds(Moments, mean=st.floats(-1e3, 1e3), std=st.floats(0, 1e3))
channels = st.builds(ChannelSketch, level=moments, spread=moments)


@st.composite
def sketches(draw: st.DrawFn) -> DataSketch:
    classes = draw(counts)
    confidence = np.bincount(
        draw(st.lists(st.integers(0, len(CONFIDENCE_EDGES)), min_size=sum(classes), max_size=sum(classes)))
        if sum(classes) < 50
        else [0] * sum(classes),
        minlength=len(CONFIDENCE_EDGES) + 1,
    )
    return DataSketch(
        samples=sum(classes),
        classes=tuple(classes),
        confidence=tuple(confidence.tolist()),
        inputs={"x": (draw(channels), draw(channels))},
    )


def flat(sketch: DataSketch) -> list[float]:
    return [
        figure
        for channel in sketch.inputs["x"]
        for part in (channel.level, channel.spread)
        # The variance, as the root of a rounding error is far larger than the error.
        for figure in (part.mean, part.std**2)
    ]


def alike(one: DataSketch, other: DataSketch) -> bool:
    same = (one.samples, one.classes, one.confidence) == (other.samples, other.classes, other.confidence)
    return same and flat(one) == pytest.approx(flat(other), rel=1e-6, abs=1e-6)


@given(sketches(), sketches(), sketches())
def test_merging_is_associative_and_commutative(a: DataSketch, b: DataSketch, c: DataSketch) -> None:
    assert alike(merged(a, b), merged(b, a))
    assert alike(merged(merged(a, b), c), merged(a, merged(b, c)))


@given(sketches())
def test_a_sketch_survives_a_round_trip(sketch: DataSketch) -> None:
    assert from_json(DataSketch, to_json(sketch), where="test") == sketch


@given(counts, counts)
def test_divergences_are_symmetric_and_not_negative(one: list[int], other: list[int]) -> None:
    assert population_stability_index(one, other) >= 0
    assert population_stability_index(one, other) == pytest.approx(population_stability_index(other, one))
    assert 0 <= jensen_shannon_distance(one, other) <= 1
    assert jensen_shannon_distance(one, other) == pytest.approx(jensen_shannon_distance(other, one))
    assert population_stability_index(one, one) == 0
    assert jensen_shannon_distance(one, one) == pytest.approx(0, abs=1e-7)


@given(counts, counts, counts)
def test_the_jensen_shannon_distance_is_a_metric(a: list[int], b: list[int], c: list[int]) -> None:
    assert (
        jensen_shannon_distance(a, c) <= jensen_shannon_distance(a, b) + jensen_shannon_distance(b, c) + 1e-9
    )


def test_the_index_is_that_of_the_formula() -> None:
    p, q = [(n + 0.5) / 102 for n in (10, 20, 30, 40)], [(n + 0.5) / 102 for n in (40, 30, 20, 10)]
    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert population_stability_index([10, 20, 30, 40], [40, 30, 20, 10]) == pytest.approx(expected)


def test_without_drift_the_index_is_what_chance_makes_it() -> None:
    rng, shares = np.random.default_rng(1), np.full(10, 0.1)
    found = [
        population_stability_index(
            rng.multinomial(240, shares).tolist(), rng.multinomial(2000, shares).tolist()
        )
        for _ in range(400)
    ]
    assert np.mean(found) == pytest.approx(expected_psi(10, 240, 2000), rel=0.1)


def test_sketches_of_different_models_do_not_merge() -> None:
    with pytest.raises(ValueError, match="different models"):
        merged(DataSketch(samples=1, classes=(1, 0)), DataSketch(samples=1, classes=(1, 0, 0)))


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to 3, not to 4"):
        DataSketch(samples=4, classes=(1, 2))


def image_model(classes: int = 10, *, nhwc: bool = True) -> Sketcher:
    shape, permutation = ((1, 32, 32, 3), (0, 2, 3, 1)) if nhwc else ((1, 3, 32, 32), None)
    pixels = TensorSpec(
        name="x",
        runtime_name="x",
        shape=shape,
        dtype="uint8",
        permutation=permutation,
        quantisation=Quantisation(scale=0.5, zero_point=10),
    )
    logits = Quantisation(scale=0.1, zero_point=0)
    scores = TensorSpec(name="y", runtime_name="y", shape=(1, classes), dtype="int8", quantisation=logits)
    return Sketcher((pixels,), (scores,), "y")


def one_hot(index: int, classes: int = 10, height: int = 60) -> NDArray[np.int8]:
    scores = np.zeros((1, classes), np.int8)
    scores[0, index] = height
    return scores


def sketch_of(sketcher: Sketcher, samples: list[tuple[NDArray[Any], NDArray[Any]]]) -> DataSketch:
    for pixels, scores in samples:
        sketcher.add(sketcher.glimpse([pixels], [scores]))
    sketch = sketcher.take()
    assert sketch is not None
    return sketch


@pytest.mark.parametrize("nhwc", [True, False])
def test_integers_are_looked_at_as_the_real_values_of_each_channel(nhwc: bool) -> None:
    pixels = np.zeros((1, 3, 32, 32), np.uint8)
    pixels[:, 0], pixels[:, 1], pixels[:, 2] = 10, 20, 30
    pixels[:, 2, ::2] = 50
    raw = pixels.transpose(0, 2, 3, 1) if nhwc else pixels
    sketch = sketch_of(image_model(nhwc=nhwc), [(raw, one_hot(3)), (raw, one_hot(7))])
    red, green, blue = sketch.inputs["x"]
    assert (red.level.mean, green.level.mean) == (0.0, 5.0)
    assert blue.level.mean == pytest.approx(15.0, abs=0.1) and blue.spread.mean == pytest.approx(
        5.0, abs=0.01
    )
    assert red.level.std == red.spread.mean == 0.0
    assert sketch.classes == (0, 0, 0, 1, 0, 0, 0, 1, 0, 0)


def test_confidence_is_that_of_the_softmax_of_the_real_scores() -> None:
    sketch = sketch_of(image_model(), [(np.zeros((1, 32, 32, 3), np.uint8), one_hot(0, height=60))])
    confidence = math.exp(6.0) / (math.exp(6.0) + 9)  # 60 steps of 0.1 against nine noughts: 0.978
    assert sketch.confidence.index(1) == sum(edge < confidence for edge in CONFIDENCE_EDGES)


def test_scores_that_are_probabilities_are_taken_as_they_are() -> None:
    spec = TensorSpec(name="x", runtime_name="x", shape=(1, 2), dtype="float32")
    scores = TensorSpec(name="y", runtime_name="y", shape=(1, 3), dtype="float32")
    sketcher = Sketcher((spec,), (scores,), "y")
    sketch = sketch_of(sketcher, [(np.zeros((1, 2), np.float32), np.array([[0.1, 0.75, 0.15]], np.float32))])
    assert sketch.confidence.index(1) == CONFIDENCE_EDGES.index(0.8)


def test_a_thousand_classes_fold_into_a_few_hundred_bytes() -> None:
    rng = np.random.default_rng(0)
    samples = [
        (rng.integers(0, 255, (1, 32, 32, 3), dtype=np.uint8), one_hot(int(rng.integers(1000)), 1000))
        for _ in range(300)
    ]
    sketch = sketch_of(image_model(1000), samples)
    assert len(sketch.classes) == CLASS_BINS and sum(sketch.classes) == 300
    assert len(to_json(sketch)) < 600


def test_a_model_that_is_no_classification_has_its_inputs_sketched() -> None:
    spec = TensorSpec(name="x", runtime_name="x", shape=(1, 16), dtype="float32")
    sketcher = Sketcher((spec,), (), None)
    sketch = sketch_of(sketcher, [(np.full((1, 16), 2.0, np.float32), np.zeros(1))])
    assert (sketch.classes, sketch.confidence, len(sketch.inputs["x"])) == ((), (), 1)


floats = st.floats(width=32) | st.sampled_from([math.inf, -math.inf, math.nan, 3e38])


@given(st.lists(st.lists(floats, min_size=5, max_size=5), min_size=1, max_size=5))
def test_whatever_a_model_is_given_or_answers_has_a_sketch(rows: list[list[float]]) -> None:
    spec = TensorSpec(name="x", runtime_name="x", shape=(1, 5), dtype="float32")
    scores = TensorSpec(name="y", runtime_name="y", shape=(1, 5), dtype="float32")
    arrays = [np.array([row], np.float32) for row in rows]
    sketch = sketch_of(Sketcher((spec,), (scores,), "y"), [(array, array) for array in arrays])
    assert sketch.samples == len(rows)
    assert from_json(DataSketch, to_json(sketch), where="test") == sketch


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**31))
def test_two_halves_merge_to_the_whole(first: int, second: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = [
        (rng.integers(0, 255, (1, 32, 32, 3), dtype=np.uint8), one_hot(int(rng.integers(10))))
        for _ in range(first + second)
    ]
    assume(first and second)
    halves = merged(sketch_of(image_model(), samples[:first]), sketch_of(image_model(), samples[first:]))
    whole = sketch_of(image_model(), samples)
    assert (halves.classes, halves.confidence) == (whole.classes, whole.confidence)
    assert flat(halves) == pytest.approx(flat(whole), rel=1e-4, abs=1e-3)


def test_drift_shows_in_what_drifted_and_only_there() -> None:
    rng = np.random.default_rng(0)

    def samples(count: int, brightness: int, classes: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        return [
            (
                (rng.integers(0, 100, (1, 32, 32, 3)) + int(rng.integers(40)) + brightness).astype(np.uint8),
                one_hot(int(rng.integers(classes))),
            )
            for _ in range(count)
        ]

    reference = sketch_of(image_model(), samples(1000, 0, 10))
    same = drift(sketch_of(image_model(), samples(240, 0, 10)), reference)
    brighter = drift(sketch_of(image_model(), samples(240, 60, 10)), reference)
    fewer = drift(sketch_of(image_model(), samples(240, 0, 3)), reference)
    assert same.samples == 240
    assert same.class_psi is not None and same.class_psi < 0.15 and (same.input_shift or 0) < 0.3
    assert brighter.input_shift is not None and brighter.input_shift > 3
    assert brighter.class_psi is not None and brighter.class_psi < 0.15
    assert fewer.class_psi is not None and fewer.class_psi > 2 and (fewer.input_shift or 0) < 0.3
    assert fewer.class_distance is not None and same.class_distance is not None
    assert fewer.class_distance > 3 * same.class_distance
