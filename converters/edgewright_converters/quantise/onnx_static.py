"""Static INT8 for ONNX with ONNX Runtime's quantiser: QDQ nodes, integer inputs and outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgewright.artifact.manifest import Quantisation, TensorSpec
from edgewright.errors import ConversionError
from edgewright_converters.export import ExportedGraph
from edgewright_converters.float_graph import ACTIVATIONS, attribute
from edgewright_converters.quantise.quantised_model import ActivationDtype, QuantisedModel
from edgewright_converters.quantise.tflite_static import replace_spec
from edgewright_converters.silence import silenced
from edgewright_converters.tensorrt_rules import WEIGHTED

PAD_OPSET = 13
"""The first in which Pad takes integers."""
CHANNELS = 4
"""Products of 8-bit integers are made and summed by fours, on x86 (VNNI) as on Arm (dot products)."""

_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


def quantise_onnx(
    graph: ExportedGraph,
    ranges: Mapping[str, tuple[float, float]],
    activation: ActivationDtype,
    *,
    symmetric: bool = False,
    in_float: frozenset[str] = frozenset(),
    rounded_scores: bool = False,
) -> QuantisedModel:
    """Quantise a float ONNX graph by the ranges of its tensors; nodes named in `in_float` are left alone.

    `rounded_scores` puts on its grid too what a last Gemm gives, for weights that have learnt to be so.
    `symmetric` gives the form that TensorRT demands: zero points of nought, biases, inputs and outputs in
    float, and Q/DQ pairs before what is multiplied alone, so that each layer can be fused with what follows
    it. ONNX Runtime computes such a file in float, between the same roundings. Raises `ConversionError`.
    """
    measured = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    operators = sorted({*QLinearOpsRegistry, *QDQRegistry})
    options: dict[str, Any] = {"ActivationSymmetric": symmetric, "WeightSymmetric": True}
    if symmetric:
        operators = list(WEIGHTED)
        options |= {"QuantizeBias": False, "OpTypesToExcludeOutputQuantization": operators}
    proto = _untied(onnx.load_from_string(graph.data))
    unfit = _unfit(proto.graph) | (_unfit_for_pairs(proto.graph) if symmetric else set())
    try:
        quantiser = QDQQuantizer(
            proto,
            True,  # per channel
            False,  # full 8-bit weight range: VNNI and Arm dot products do not saturate
            QuantType.QInt8,
            _TYPES[activation],
            TensorsData(CalibrationMethod.MinMax, measured),
            [],
            sorted(in_float | unfit),
            operators,
            options,
        )
        with silenced():
            quantiser.quantize_model()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "quantised.onnx"
            quantiser.model.save_model_to_file(str(path), False)
            proto = onnx.load(str(path))
        _hold_in_float(proto.graph, in_float | unfit)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ConversionError(f"the ONNX graph cannot be quantised ({error})") from None
    inputs, outputs = graph.inputs, graph.outputs
    if not symmetric:
        inputs = tuple(_integer_input(proto.graph, spec) for spec in inputs)
        outputs = tuple(_integer_output(proto.graph, spec, rounded_scores) for spec in outputs)
        if all(opset.version >= PAD_OPSET for opset in proto.opset_import if opset.domain in ("", "ai.onnx")):
            for spec in inputs:
                _widen(proto.graph, spec)
    proto = onnx.shape_inference.infer_shapes(proto)
    onnx.checker.check_model(proto)
    return QuantisedModel("onnx", "int8", proto.SerializeToString(), inputs, outputs)


def _untied(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give each kind of operator that shares a constant its own: their scales run over different axes.

    An embedding tied to the head would otherwise hand the head's scale per row on as that of its output.
    """
    users: dict[str, tuple[str, int, int]] = {}
    copies: dict[tuple[str, tuple[str, int, int]], str] = {}
    constants = {i.name: i for i in proto.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name not in constants:
                continue
            use = (node.op_type, index, attribute(node, "transB", 0))
            if users.setdefault(name, use) == use:
                continue
            if (name, use) not in copies:
                copies[name, use] = f"{name}_of_{node.name}"
                copy = proto.graph.initializer.add()
                copy.CopyFrom(constants[name])
                copy.name = copies[name, use]
            node.input[index] = copies[name, use]
    return proto


def _unfit(graph: onnx.GraphProto) -> set[str]:
    """Nodes that the quantiser would get wrong, by name."""
    shown = {value.name for value in graph.output}
    return {
        node.name
        for node in graph.node
        # A scale for each channel of a group fits no bias, and ONNX Runtime has no integer kernel for it anyway.
        if (node.op_type == "ConvTranspose" and attribute(node, "group", 1) > 1)
        # It would drop the factor of the bias.
        or (
            node.op_type == "Gemm"
            and (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)) != (1.0, 1.0)
        )
        # It would fuse the activation into an output that is to be seen before it.
        or (node.op_type in ACTIVATIONS and node.input[0] in shown)
    }


def _unfit_for_pairs(graph: onnx.GraphProto) -> set[str]:
    """Nodes that ONNX Runtime cannot run without a QuantizeLinear behind them, by name."""
    constants = {i.name for i in graph.initializer}
    # Its kernel for a product of integers that gives floats takes one scale for the left side.
    return {node.name for node in graph.node if node.op_type == "MatMul" and node.input[0] in constants}


def _hold_in_float(graph: onnx.GraphProto, names: Set[str]) -> None:
    """Put an operator that does nothing after each layer left in float.

    Between a DequantizeLinear and a QuantizeLinear, ONNX Runtime would round the layer's weights by itself when it
    loads the model, with one scale for all channels (its WeightBiasQuantization): worse than what we left out.
    """
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.name in names and node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            output, inner = node.output[0], f"{node.output[0]}_in_float"
            node.output[0] = inner
            # Identity would be optimised away before.
            nodes.append(
                onnx.helper.make_node("LeakyRelu", [inner], [output], f"{node.name}_held", alpha=1.0)
            )
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in graph.initializer}


def _parameters(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[Quantisation, str]:
    constants = _constants(graph)
    scale, zero_point = constants[node.input[1]], constants[node.input[2]]
    return Quantisation(scale=float(scale.item()), zero_point=int(zero_point.item())), zero_point.dtype.name


def _integer_input(graph: onnx.GraphProto, spec: TensorSpec) -> TensorSpec:
    """Take the graph input as the integers its QuantizeLinear would make, and drop that node."""
    users = [node for node in graph.node if spec.runtime_name in node.input]
    if len(users) != 1 or users[0].op_type != "QuantizeLinear":
        return spec
    (node,) = users
    quantisation, dtype = _parameters(graph, node)
    (value,) = [value for value in graph.input if value.name == spec.runtime_name]
    value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for user in graph.node:
        user.input[:] = [spec.runtime_name if name == node.output[0] else name for name in user.input]
    _drop(graph, node)
    return replace_spec(spec, dtype, quantisation)


def _widen(graph: onnx.GraphProto, spec: TensorSpec) -> None:
    """Give a convolution of the graph input, an image of three channels, a fourth one of nought.

    ONNX Runtime's direct kernel takes channels by fours alone, and copies every window together for others: the
    stem of EfficientNet-Lite0 takes 0.13 ms so in place of 0.29, 7 % of the model's time (one thread, x86 with
    VNNI), and gives the same bits.
    """
    (dequantise, *others) = [node for node in graph.node if spec.runtime_name in node.input]
    if others or dequantise.op_type != "DequantizeLinear" or len(spec.shape) < 3:
        return
    users = [node for node in graph.node if dequantise.output[0] in node.input]
    lacking = -spec.shape[1] % CHANNELS
    if len(users) != 1 or users[0].op_type != "Conv" or attribute(users[0], "group", 1) != 1 or not lacking:
        return
    makers = [node for node in graph.node if users[0].input[1] in node.output]
    stored = {i.name: i for i in graph.initializer}
    if len(makers) != 1 or makers[0].input[0] not in stored:
        return
    weight = stored[makers[0].input[0]]
    if sum(name in (weight.name, users[0].input[1]) for node in graph.node for name in node.input) != 2:
        return
    integers = numpy_helper.to_array(weight)
    none = [(0, 0)] * (integers.ndim - 2)
    weight.CopyFrom(
        numpy_helper.from_array(np.pad(integers, [(0, 0), (0, lacking), *none]), weight.name)
    )  # symmetric: its zero point is nought
    widths = np.zeros((2, len(spec.shape)), np.int64)
    widths[1, 1] = lacking
    name = f"{spec.runtime_name}_widened"
    graph.initializer.append(numpy_helper.from_array(widths.ravel(), f"{name}_by"))
    pad = onnx.helper.make_node("Pad", [spec.runtime_name, f"{name}_by", dequantise.input[2]], [name], name)
    dequantise.input[0] = name
    graph.node.insert(0, pad)
    del graph.value_info[:]


def _integer_output(graph: onnx.GraphProto, spec: TensorSpec, rounded_scores: bool) -> TensorSpec:
    """Give the graph output as the integers that its DequantizeLinear takes, and drop that node."""
    (node,) = [node for node in graph.node if spec.runtime_name in node.output]
    stored = node.input[0]
    producers = [other for other in graph.node if stored in other.output]
    if node.op_type != "DequantizeLinear" or not producers:
        return spec
    if not rounded_scores and _given_in_float(graph, producers[0], node):
        return spec
    quantisation, dtype = _parameters(graph, node)
    if any(spec.runtime_name in other.input for other in graph.node):
        # The output is used inside the graph too: there it stays dequantised, under another name.
        inner = f"{spec.runtime_name}_dequantised"
        node.output[0] = inner
        for other in graph.node:
            other.input[:] = [inner if name == spec.runtime_name else name for name in other.input]
    else:
        _drop(graph, node)
    for other in graph.node:
        other.input[:] = [spec.runtime_name if name == stored else name for name in other.input]
        other.output[:] = [spec.runtime_name if name == stored else name for name in other.output]
    (value,) = [value for value in graph.output if value.name == spec.runtime_name]
    value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    # What was inferred of the old tensors contradicts the new types.
    del graph.value_info[:]
    return replace_spec(spec, dtype, quantisation)


def _given_in_float(graph: onnx.GraphProto, quantise: onnx.NodeProto, dequantise: onnx.NodeProto) -> bool:
    """Let a Gemm whose result nothing but the output takes give its sums as they are; whether it is one.

    ONNX Runtime multiplies integers all the same (its QGemm scales the sums in place of rounding them), and scores
    are told apart that would share one of 256 codes: ties cost EfficientNet-Lite0 one top class in a hundred.
    """
    if quantise.op_type != "QuantizeLinear":
        return False
    sums, stored, output = quantise.input[0], quantise.output[0], dequantise.output[0]
    producers = [other for other in graph.node if sums in other.output]
    users = [other for other in graph.node for name in (sums, stored, output) if name in other.input]
    if len(producers) != 1 or producers[0].op_type != "Gemm" or len(users) != 2:
        return False
    _drop(graph, dequantise)
    _drop(graph, quantise)
    producers[0].output[0] = output
    del graph.value_info[:]
    return True


def _drop(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    graph.node.remove(node)
    used = {name for other in graph.node for name in other.input}
    for initialiser in list(graph.initializer):
        if initialiser.name not in used:
            graph.initializer.remove(initialiser)
