"""NNCF's post-training quantisation with its more accurate settings, on ONNX or, for an `.xml` output, OpenVINO.

A script for the environment `nncf`: `FLOAT.onnx CALIBRATION.npz OUTPUT VARIANT [transformer]`. The variant
`accuracy` reverts operators to float until no more than one calibration image in 500 is lost.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import nncf
import numpy as np
import onnx
import openvino


def main() -> None:
    source, calibration, output, variant, *family = sys.argv[1:]
    with np.load(calibration) as arrays:
        x, y = arrays["x"], arrays.get("y")
    on_openvino = output.endswith(".xml")
    model = openvino.Core().read_model(source) if on_openvino else onnx.load(source)
    rows = [{"x": x[i : i + 1]} for i in range(len(x))]
    settings: dict[str, Any] = {
        "preset": nncf.QuantizationPreset.MIXED,
        "target_device": nncf.TargetDevice.CPU,
        "subset_size": len(x),
        "fast_bias_correction": False,
        "model_type": nncf.ModelType.TRANSFORMER if "transformer" in family else None,
    }
    if variant == "accuracy":
        labelled = [(row, int(label)) for row, label in zip(rows, y, strict=True)]
        quantised = nncf.quantize_with_accuracy_control(
            model, nncf.Dataset(rows), nncf.Dataset(labelled), _accuracy, max_drop=0.002, **settings
        )
    else:
        quantised = nncf.quantize(model, nncf.Dataset(rows), **settings)
    if on_openvino:
        openvino.save_model(quantised, output, compress_to_fp16=False)
    else:
        onnx.save(quantised, output)


def _accuracy(compiled: Any, data: Iterable[Any]) -> tuple[float, list[float]]:
    hits = [float(int(np.argmax(compiled(row)[0])) == label) for row, label in data]
    return sum(hits) / len(hits), hits


main()
