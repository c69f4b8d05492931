"""Every rule of TensorRT's explicit quantisation is found broken in a file that breaks it, and in no other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import bounds_of, conv_chain, samples_of

from edgewright_converters.quantise.onnx_static import quantise_onnx
from edgewright_converters.tensorrt_rules import TensorRtFile, in_words
from edgewright_profiles import load_delegate

RULES = load_delegate("tensorrt")


def good() -> onnx.ModelProto:
    graph = conv_chain(unequal=False)
    model = quantise_onnx(graph.exported(), bounds_of(graph, samples_of(graph)), "int8", symmetric=True)
    return onnx.load_from_string(model.data)


def constant(proto: onnx.ModelProto, name: str, value: object) -> None:
    (found,) = [i for i in proto.graph.initializer if i.name == name]
    found.CopyFrom(numpy_helper.from_array(np.asarray(value), name))


def the(proto: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.op_type == kind)


def opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 25


def newer_file(proto: onnx.ModelProto) -> None:
    proto.ir_version = 11


def integer_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8


def open_size(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def other_domain(proto: onnx.ModelProto) -> None:
    the(proto, "Relu").domain = "com.microsoft"


def unknown_operator(proto: onnx.ModelProto) -> None:
    the(proto, "Relu").op_type = "DynamicQuantizeLinear"


def half_quantised(proto: onnx.ModelProto) -> None:
    (weight,) = [i for i in proto.graph.initializer if i.name == "w1_quantized"]
    weight.CopyFrom(numpy_helper.from_array(np.zeros(weight.dims, np.float32), "w1"))
    the(proto, "Conv").input[1] = "w1"


def zero_point(proto: onnx.ModelProto) -> None:
    constant(proto, "x_zero_point", np.int8(3))


def unsigned(proto: onnx.ModelProto) -> None:
    constant(proto, "x_zero_point", np.uint8(0))


def no_zero_point(proto: onnx.ModelProto) -> None:
    del the(proto, "QuantizeLinear").input[2]


def integer_bias(proto: onnx.ModelProto) -> None:
    constant(proto, "b1", np.zeros(6, np.int32))
    for name, value in (("s", np.ones(6, np.float32)), ("z", np.zeros(6, np.int32))):
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    proto.graph.node.insert(
        0, helper.make_node("DequantizeLinear", ["b1", "s", "z"], ["real"], "bias", axis=0)
    )
    the(proto, "Conv").input[2] = "real"


def negative_scale(proto: onnx.ModelProto) -> None:
    constant(proto, "x_scale", np.float32(-0.1))


def scale_for_each_channel(proto: onnx.ModelProto) -> None:
    constant(proto, "x_scale", np.full(4, 0.1, np.float32))


def scalar(proto: onnx.ModelProto) -> None:
    constant(proto, "w1_quantized", np.int8(1))


def pair_before_the_activation(proto: onnx.ModelProto) -> None:
    relu = the(proto, "Relu")
    at = list(proto.graph.node).index(relu)
    made = relu.input[0]
    pair = [
        helper.make_node("QuantizeLinear", [made, "x_scale", "x_zero_point"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "x_scale", "x_zero_point"], ["d"], "d"),
    ]
    relu.input[0] = "d"
    for node in reversed(pair):
        proto.graph.node.insert(at, node)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (opset, "opset 25 is not one of 9 to 20"),
        (newer_file, "version 11 of the file format"),
        (integer_input, "an integer of 8 bits"),
        (open_size, "no fixed size"),
        (other_domain, "operator com.microsoft::Relu is not of ONNX"),
        (unknown_operator, "operator DynamicQuantizeLinear is not one that TensorRT has"),
        (half_quantised, "one input of a weighted operator is quantised"),
        (zero_point, "a zero point is not nought"),
        (unsigned, "uint8 is quantised"),
        (no_zero_point, "is missing"),
        (integer_bias, "int32 is quantised; TensorRT takes int8, and a bias in float (bias)"),
        (negative_scale, "not positive"),
        (scale_for_each_channel, "a scale for each channel"),
        (scalar, "a scalar is quantised"),
        (pair_before_the_activation, "kept from its layer"),
    ],
)
def test_broken_rule_is_named(spoil: Callable[[onnx.ModelProto], None], said: str) -> None:
    proto = good()
    assert TensorRtFile(proto).breaches(RULES) == ()
    spoil(proto)
    assert said in "; ".join(map(str, TensorRtFile(proto).breaches(RULES)))


def test_file_for_the_cpu_breaks_rules_and_only_the_first_are_shown() -> None:
    graph = conv_chain()
    model = quantise_onnx(graph.exported(), bounds_of(graph, samples_of(graph)), "uint8")
    breaches = TensorRtFile.of(model.data).breaches(RULES)
    assert len(breaches) > 3 and in_words(breaches).endswith(f"; and {len(breaches) - 3} more")
