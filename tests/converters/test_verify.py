from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import tiny_golden, tiny_manifest, tiny_onnx
from edgewright.errors import ArtifactError, ConversionError, DataError
from edgewright.runtime.memory import measure_peak_memory
from edgewright_converters.calibration import Sample
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.verify import GOLDEN_VECTORS, compare

Array = NDArray[Any]


def tiny(offset: int) -> QuantisedModel:
    """The integer model y = x + offset, whose scale is 0.5 and zero point 10."""
    model = tiny_onnx(offset)
    manifest = tiny_manifest(model, tiny_golden())
    return QuantisedModel("onnx", "int8", model, manifest.inputs, manifest.outputs)


def plus_half(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"] + np.float32(0.5)}


def stream(count: int, label: int | None = None) -> Iterator[Sample]:
    for index in range(count):
        yield Sample({"x": np.array([[index % 7, 3, 1, 2]], np.float32)}, label)


def test_all_models_are_compared_in_one_pass_over_a_stream() -> None:
    calls: list[int] = []

    def reference(inputs: Mapping[str, Array]) -> dict[str, Array]:
        calls.append(1)
        return plus_half(inputs)

    right, off = compare([tiny(1), tiny(3)], stream(50, label=0), reference, "evaluation")
    assert len(calls) == right.accuracy.samples == off.accuracy.samples == 50
    assert right.accuracy.sqnr_db["y"] == 200.0 and right.accuracy.cosine["y"] == 1.0
    assert off.accuracy.sqnr_db["y"] < 20
    assert right.accuracy.change is not None and right.accuracy.change.value == 0.0
    assert right.golden.count == GOLDEN_VECTORS
    assert right.runtime.startswith("onnxruntime ")


def test_memory_does_not_grow_with_the_data() -> None:
    import tracemalloc

    def peak(count: int) -> int:
        tracemalloc.start()
        compare([tiny(1)], stream(count), plus_half, "evaluation")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)  # what is imported and cached at first is not the data's
    assert peak(2000) < peak(100) + 20_000


@pytest.mark.parametrize(
    ("samples", "reference", "error", "problem"),
    [
        (stream(0), plus_half, DataError, "there is no sample"),
        (stream(3, label=4), plus_half, DataError, "label 4 is out of range: the model scores 4 classes"),
        (
            stream(3),
            lambda i: {"y": i["x"] * np.float32("nan")},
            ConversionError,
            "is not finite for sample 0",
        ),
        (
            stream(3, label=0),
            lambda i: {"y": i["x"].ravel()},
            DataError,
            "has labels, but the model's output",
        ),
    ],
)
def test_data_that_cannot_be_judged_is_one_line(
    samples: Iterator[Sample], reference: Any, error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem) as caught:
        compare([tiny(1)], samples, reference, "evaluation")
    assert "\n" not in str(caught.value)


def test_peak_memory_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_onnx())
    memory = measure_peak_memory(path)
    assert memory is not None
    assert 10_000_000 < memory.runtime_bytes <= memory.peak_bytes < 500_000_000
    path.write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="is not a model"):
        measure_peak_memory(path)


def test_the_data_as_the_artifact_answered_it_is_the_reference_for_drift() -> None:
    (compared,) = compare([tiny(1)], stream(50), plus_half, "evaluation")
    reference = compared.drift_reference
    assert (reference.how, reference.data, reference.sketch.samples) == ("measured on host", "evaluation", 50)
    # Seven inputs in turn, [n, 3, 1, 2]: from n = 3 on the first of the four scores is the greatest.
    greatest_first = sum(index % 7 >= 3 for index in range(50))
    assert reference.sketch.classes == (greatest_first, 50 - greatest_first, 0, 0)
    levels = [channel.level.mean for channel in reference.sketch.inputs["x"]]
    assert levels == pytest.approx([np.mean([index % 7 for index in range(50)]), 3, 1, 2])
