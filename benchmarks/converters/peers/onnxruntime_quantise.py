"""ONNX Runtime's own quantiser, set as its documentation advises: pre-processed, per channel, U8S8, QDQ.

A script for the environment `onnxruntime`: `FLOAT.onnx CALIBRATION.npz OUTPUT.onnx VARIANT [transformer]`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


class Samples(CalibrationDataReader):
    def __init__(self, path: str) -> None:
        with np.load(path) as arrays:
            x = arrays["x"]
        self._rows = iter(x[i : i + 1] for i in range(len(x)))

    def get_next(self) -> dict[str, Any] | None:
        row = next(self._rows, None)
        return None if row is None else {"x": row}


def main() -> None:
    source, calibration, output, variant, *family = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Symbolic shape inference fails on transformers; the documentation says to skip it there.
        quant_pre_process(source, prepared, skip_symbolic_shape="transformer" in family)
        if variant == "dynamic":
            quantize_dynamic(prepared, output, per_channel=True, weight_type=QuantType.QInt8)
            return
        method, options = {
            "minmax": (CalibrationMethod.MinMax, {}),
            "percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.99}),
            "entropy": (CalibrationMethod.Entropy, {}),
        }[variant]
        quantize_static(
            prepared,
            output,
            Samples(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            extra_options=options,
        )


main()
