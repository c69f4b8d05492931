"""Olive's static ONNX quantisation, told to do U8S8 per channel (its default, signed activations, is slow on x86).

A script for the environment `olive`: `FLOAT.onnx CALIBRATION.npz OUTPUT.onnx VARIANT [transformer]`. Olive
imports it once more, as the user script that reads the calibration data.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from olive.data.registry import Registry

METHODS: dict[str, tuple[str, dict[str, float]]] = {
    "minmax": ("MinMax", {}),
    "percentile": ("Percentile", {"CalibPercentile": 99.99}),
}


class Samples:
    """What Olive takes for a dataset: inputs with a label, which calibration does not read."""

    def __init__(self, path: str) -> None:
        with np.load(path) as arrays:
            self._x = arrays["x"]

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], int]:
        return {"x": self._x[index]}, 0


@Registry.register_dataset()  # type: ignore[untyped-decorator]
def calibration_samples(path: str, **_: Any) -> Samples:
    return Samples(path)


def main() -> None:
    from olive.workflows import run

    source, calibration, output, variant, *_ = sys.argv[1:]
    method, options = METHODS[variant]
    data = {
        "name": "calibration",
        "user_script": __file__,
        "load_dataset_config": {"type": "calibration_samples", "params": {"path": calibration}},
        "dataloader_config": {"batch_size": 1},
    }
    static = {
        "type": "OnnxStaticQuantization",
        "data_config": "calibration",
        "quant_preprocess": True,
        "per_channel": True,
        "precision": "int8",
        "activation_type": "uint8",
        "quant_format": "QDQ",
        "calibrate_method": method,
        "extra_options": options,
    }
    with tempfile.TemporaryDirectory() as folder:
        run(
            {
                "input_model": {"type": "ONNXModel", "model_path": source},
                "data_configs": [data],
                "passes": {"quantise": static},
                "output_dir": f"{folder}/output",
                "cache_dir": f"{folder}/cache",
            }
        )
        (made,) = Path(folder, "output").rglob("*.onnx")
        shutil.copy(made, output)


if __name__ == "__main__":
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    main()
