"""Static INT8 for TFLite with ai-edge-quantizer: int8 in and out, per-channel weights."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.artifact.manifest import Quantisation, TensorSpec
from edgewright.errors import ConversionError
from edgewright_converters.calibrate import CalibrationStats
from edgewright_converters.export import ExportedGraph
from edgewright_converters.quantise.quantised_model import QuantisedModel
from edgewright_converters.silence import silenced


@dataclass(frozen=True)
class SignatureKeys:
    """The one signature of a graph: its key, and its argument names by tensor name."""

    signature: str
    inputs: dict[str, str]


def signature_keys(data: bytes) -> SignatureKeys:
    """The signature that calibration calls the graph by."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    (signature,) = interpreter.get_signature_list()
    details = interpreter.get_signature_runner(signature).get_input_details()
    return SignatureKeys(signature, {str(detail["name"]): key for key, detail in details.items()})


def quantise_tflite(graph: ExportedGraph, stats: CalibrationStats) -> QuantisedModel:
    """Quantise a float TFLite graph by the ranges of `stats`. Raises `ConversionError`."""
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.quantizer import Quantizer

    ranges = {name: {"min": low, "max": high} for name, (low, high) in stats.ranges.items()}
    try:
        with silenced():
            result = Quantizer(graph.data, recipe.static_wi8_ai8()).quantize(
                ranges, enable_progress_report=False
            )
    except (ValueError, RuntimeError, KeyError) as error:
        raise ConversionError(f"the TFLite graph cannot be quantised ({error})") from None
    data = bytes(result.quantized_model)
    with silenced():
        inputs, outputs = _stored_as(graph.inputs, data), _stored_as(graph.outputs, data)
        return QuantisedModel("tflite", "int8", data, inputs, outputs, _float_operators(data))


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


def _float_operators(data: bytes) -> tuple[str, ...]:
    """Operators whose result is float although they are no conversion to or from integers."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without a delegate every operator of the file is listed, not the one that XNNPACK fuses them into.
    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    tensors = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    left = []
    for operator in interpreter._get_ops_details():
        outputs = [tensors[index] for index in operator["outputs"] if index in tensors]
        is_float = any(np.issubdtype(detail["dtype"], np.floating) for detail in outputs)
        if is_float and operator["op_name"] not in ("QUANTIZE", "DEQUANTIZE"):
            left.append(f"{operator['op_name']} {outputs[0]['name'].rsplit(';', 1)[-1]}")
    return tuple(left)
