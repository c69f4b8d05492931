"""`CalibrationStats`: the range that each tensor of a float graph takes over the calibration data.

True minimum and maximum. The stock calibration of ai-edge-quantizer averages them over samples, which cuts
off what the model's output needs most: 83.6 % against 94.5 % top-class agreement on EfficientNet-Lite0.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator

from edgewright.artifact.manifest import ModelFormat
from edgewright.errors import DataError
from edgewright_converters.calibration import SampleSet
from edgewright_converters.export import ExportedGraph
from edgewright_converters.silence import silenced

Array = NDArray[Any]


@dataclass(frozen=True)
class CalibrationStats:
    """Minimum and maximum of each tensor by its name in the graph."""

    format: ModelFormat
    ranges: Mapping[str, tuple[Array, Array]]
    samples: int


def calibrate(graph: ExportedGraph, samples: SampleSet) -> CalibrationStats:
    """Run every sample through the float graph and record each tensor's range.

    Raises `DataError` where a range comes out infinite.
    """
    feeds = _feeds(graph, samples)
    ranges = _onnx_ranges(graph, feeds) if graph.format == "onnx" else _tflite_ranges(graph, feeds)
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            problem = f"the calibration data drives tensor '{name}' to infinity"
            raise DataError(problem, where=samples.where, remedy="look for outliers in the data")
    return CalibrationStats(graph.format, ranges, samples.count)


def _feeds(graph: ExportedGraph, samples: SampleSet) -> Iterator[dict[str, Array]]:
    for sample in samples:
        yield {
            spec.runtime_name: np.ascontiguousarray(
                sample.inputs[spec.name].transpose(spec.permutation)
                if spec.permutation
                else sample.inputs[spec.name],
                spec.dtype,
            )
            for spec in graph.inputs
        }


def _onnx_ranges(graph: ExportedGraph, feeds: Iterator[dict[str, Array]]) -> dict[str, tuple[Array, Array]]:
    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(feeds, None)

    with tempfile.TemporaryDirectory() as folder, silenced():
        path = Path(folder) / "float.onnx"
        path.write_bytes(graph.data)
        calibrator = create_calibrator(
            path,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(Reader())
        data = calibrator.compute_data()
    return {name: data[name].range_value for name in data.keys()}  # noqa: SIM118 - not a mapping


def _tflite_ranges(graph: ExportedGraph, feeds: Iterator[dict[str, Array]]) -> dict[str, tuple[Array, Array]]:
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils import qsv_utils

    from edgewright_converters.quantise.tflite_static import signature_keys

    recipes = RecipeManager()
    recipes.load_quantization_recipe(recipe.static_wi8_ai8())
    with silenced():
        keys = signature_keys(graph.data)
        calibrator = Calibrator(
            graph.data, num_threads=os.cpu_count() or 1, qsv_update_func=qsv_utils.min_max_update
        )
        named = ({keys.inputs[name]: array for name, array in feed.items()} for feed in feeds)
        calibrator.calibrate({keys.signature: list(named)}, recipes)
    return {
        name: (qsv["min"], qsv["max"]) for name, qsv in calibrator.get_model_qsvs().items() if "min" in qsv
    }
