"""Static INT8 for TFLite with ai-edge-quantizer: int8 in and out, per-channel weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
                "regex": f"^{re.escape(name)};$",  # what ends each name of an operator's outputs
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
        before, after = _details(graph.data), _details(data)
    return QuantisedModel(
        "tflite",
        "int8",
        data,
        _stored_as(graph.inputs, before, after),
        _stored_as(graph.outputs, before, after),
    )


Details = list[dict[str, Any]]


def _details(data: bytes) -> Details:
    """Inputs, then outputs, in the order of the file, which quantising keeps.

    Not by name: an output that the graph also uses inside gets another one. Nor by the signature, which goes on
    naming the old tensor. Raises `ConversionError` for a file that the runtime refuses.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        # Operators left in float beside others may get an input of each kind, which no kernel takes.
        problem = str(error).splitlines()[0][:160]
        raise ConversionError(f"LiteRT does not take the quantised TFLite graph ({problem})") from None
    return [*interpreter.get_input_details(), *interpreter.get_output_details()]


def _stored_as(specs: tuple[TensorSpec, ...], before: Details, after: Details) -> tuple[TensorSpec, ...]:
    names = [str(detail["name"]) for detail in before]
    return tuple(_as_stored(spec, after[names.index(spec.runtime_name)]) for spec in specs)


def _as_stored(spec: TensorSpec, detail: Mapping[str, Any]) -> TensorSpec:
    scale, zero_point = detail["quantization"]
    quantisation = Quantisation(scale=float(scale), zero_point=int(zero_point)) if scale > 0 else None
    renamed = spec.model_copy(update={"runtime_name": str(detail["name"])})
    return replace_spec(renamed, detail["dtype"].__name__, quantisation)


def replace_spec(spec: TensorSpec, dtype: str, quantisation: Quantisation | None) -> TensorSpec:
    """The same tensor as the quantised model stores it."""
    return TensorSpec.model_validate({**spec.model_dump(), "dtype": dtype, "quantisation": quantisation})
