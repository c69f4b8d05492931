"""AI Edge Quantizer's static and dynamic INT8 recipes as it ships them, calibrated by its own `calibrate()`.

A script for the environment `ai-edge-quantizer`: `FLOAT.tflite CALIBRATION.npz OUTPUT.tflite VARIANT
[transformer]`.
"""

from __future__ import annotations

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe


def main() -> None:
    source, calibration, output, variant, *_ = sys.argv[1:]
    quantiser = quantizer.Quantizer(source)
    quantiser.load_quantization_recipe(
        recipe.dynamic_wi8_afp32() if variant == "dynamic" else recipe.static_wi8_ai8()
    )
    result = None
    if quantiser.need_calibration:
        with np.load(calibration) as arrays:
            x = np.ascontiguousarray(arrays["x"].transpose(0, 2, 3, 1))
        interpreter = Interpreter(model_path=source)
        ((signature, tensors),) = interpreter.get_signature_list().items()
        (name,) = tensors["inputs"]
        result = quantiser.calibrate({signature: [{name: x[i : i + 1]} for i in range(len(x))]})
    quantiser.quantize(result).export_model(output, overwrite=True)


main()
