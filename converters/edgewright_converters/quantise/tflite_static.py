"""Static INT8 for TFLite with ai-edge-quantizer: int8 in and out, per-channel weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from edgewright.artifact.manifest import Quantisation, TensorSpec
from edgewright.errors import ConversionError
from edgewright_converters.export import ExportedGraph
from edgewright_converters.quantise.quantised_model import QuantisedModel
from edgewright_converters.silence import silenced


def quantise_tflite(
    graph: ExportedGraph, ranges: Mapping[str, tuple[float, float]], in_float: frozenset[str] = frozenset()
) -> QuantisedModel:
    """Quantise a float TFLite graph by the ranges of its tensors; what makes a tensor of `in_float` stays float.

    Raises `ConversionError`.
    """
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.quantizer import Quantizer

    measured = {
        name: {"min": np.float32(low), "max": np.float32(high)} for name, (low, high) in ranges.items()
    }
    rules = [
        *recipe.static_wi8_ai8(),
        *(
            {
                "regex": f"^{re.escape(name)}$",
                "operation": "*",
                "algorithm_key": "no_quantize",
                "op_config": {},
            }
            for name in sorted(in_float)
        ),
    ]
    try:
        with silenced():
            result = Quantizer(graph.data, rules).quantize(measured, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ConversionError(f"the TFLite graph cannot be quantised ({error})") from None
    data = bytes(result.quantized_model)
    with silenced():
        inputs, outputs = _stored_as(graph.inputs, data), _stored_as(graph.outputs, data)
        return QuantisedModel("tflite", "int8", data, inputs, outputs)


def _stored_as(specs: tuple[TensorSpec, ...], data: bytes) -> tuple[TensorSpec, ...]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    runner = interpreter.get_signature_runner()
    details = [*runner.get_input_details().values(), *runner.get_output_details().values()]
    by_name = {str(detail["name"]): detail for detail in details}
    stored = []
    for spec in specs:
        detail = by_name[spec.runtime_name]
        scale, zero_point = detail["quantization"]
        quantisation = Quantisation(scale=float(scale), zero_point=int(zero_point)) if scale > 0 else None
        dtype = detail["dtype"].__name__
        stored.append(replace_spec(spec, dtype, quantisation))
    return tuple(stored)


def replace_spec(spec: TensorSpec, dtype: str, quantisation: Quantisation | None) -> TensorSpec:
    """The same tensor as the quantised model stores it."""
    return TensorSpec.model_validate({**spec.model_dump(), "dtype": dtype, "quantisation": quantisation})
