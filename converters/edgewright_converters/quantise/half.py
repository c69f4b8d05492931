"""FP16: the weights in half their bytes, and where the target's runtime has the kernels also the computing.

ONNX: every tensor inside becomes float16 (ONNX Runtime's `transformers/float16.py`, keep_io_types); where a
processor has no float16 kernel, ONNX Runtime casts around a float32 one. TFLite: the weights alone, dequantised
into float32 operators (ai-edge-quantizer's `float_casting` algorithm). Inputs and outputs stay float32.
"""

from __future__ import annotations

import onnx

from edgewright.errors import ConversionError
from edgewright_converters.export import ExportedGraph
from edgewright_converters.quantise.quantised_model import QuantisedModel
from edgewright_converters.quantise.tflite_recipe import quantise_by_recipe
from edgewright_converters.silence import silenced


def quantise_half(graph: ExportedGraph) -> QuantisedModel:
    """Convert a float graph. A value beyond 65,504 overflows; verification finds it. Raises `ConversionError`."""
    data = _onnx(graph.data) if graph.format == "onnx" else _tflite(graph.data)
    return QuantisedModel(graph.format, "float16", data, graph.inputs, graph.outputs)


def _onnx(data: bytes) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        with silenced():
            proto = convert_float_to_float16(onnx.load_from_string(data), keep_io_types=True)
            serialised: bytes = proto.SerializeToString()
    except (ValueError, RuntimeError, KeyError) as error:
        raise ConversionError(f"the ONNX graph has no float16 form ({error})") from None
    return serialised


def _tflite(data: bytes) -> bytes:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    manager = RecipeManager()
    manager.add_weight_only_config(
        regex=".*",
        operation_name=TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    return quantise_by_recipe(data, manager.get_quantization_recipe())
