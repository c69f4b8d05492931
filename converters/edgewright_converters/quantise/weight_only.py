"""Weight-only INT8 and INT4: small files for models whose bytes are matrices and embeddings; it computes in float.

Round to nearest in blocks (Dettmers & Zettlemoyer 2023, "The case for 4-bit precision", section 2.2, on why
blocks). ONNX: MatMulNBits and GatherBlockQuantized (ONNX Runtime, ContribOperators.md); recurrent and
convolution weights, which have no 4-bit kernel, as INT8 behind DequantizeLinear. TFLite: ai-edge-quantizer's
`weight_only_wi8_afp32` and `weight_only_wi4_afp32`, a scale for each channel.
"""

from __future__ import annotations

from typing import Literal

import onnx

from edgewright.errors import ConversionError
from edgewright_converters.export import ExportedGraph
from edgewright_converters.quantise.onnx_weights import (
    BLOCK,
    drop_unused_constants,
    split_gemms,
    store_embeddings,
    store_int8,
)
from edgewright_converters.quantise.quantised_model import QuantisedModel
from edgewright_converters.quantise.tflite_recipe import quantise_by_recipe
from edgewright_converters.silence import silenced

Bits = Literal[4, 8]


def quantise_weights(graph: ExportedGraph, bits: Bits) -> QuantisedModel:
    """Store a float graph's weights in `bits` bits; inputs and outputs stay float. Raises `ConversionError`."""
    data = _onnx(graph.data, bits) if graph.format == "onnx" else _tflite(graph.data, bits)
    precision: Literal["int4-weights", "int8-weights"] = "int4-weights" if bits == 4 else "int8-weights"
    return QuantisedModel(graph.format, precision, data, graph.inputs, graph.outputs)


def _onnx(data: bytes, bits: Bits) -> bytes:
    with silenced():  # the import configures logging
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    proto = onnx.load_from_string(data)
    split_gemms(proto.graph)
    store_embeddings(proto.graph, bits)
    store_int8(proto.graph, frozenset({"Conv", "ConvTranspose", "LSTM", "GRU", "RNN"}))
    try:
        with silenced():
            quantiser = MatMulNBitsQuantizer(
                proto,
                bits=bits,
                block_size=BLOCK,
                is_symmetric=True,
                op_types_to_quantize=("MatMul",),
            )
            quantiser.process()
    except (ValueError, RuntimeError, KeyError) as error:
        raise ConversionError(f"the weights of the ONNX graph cannot be quantised ({error})") from None
    proto = quantiser.model.model
    # A weight that two products share was stored once for each, under one name.
    drop_unused_constants(proto.graph)
    serialised: bytes = proto.SerializeToString()
    return serialised


def _tflite(data: bytes, bits: Bits) -> bytes:
    from ai_edge_quantizer import recipe

    if bits == 8:
        return quantise_by_recipe(data, recipe.weight_only_wi8_afp32())
    # What has no 4-bit form keeps 8: of two settings for an operator the later one that it supports wins.
    return quantise_by_recipe(data, [*recipe.weight_only_wi8_afp32(), *recipe.weight_only_wi4_afp32()])
