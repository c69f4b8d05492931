"""`FloatGraph`: an optimised float ONNX graph as the quantisation algorithms see it.

It owns the structure (who makes a tensor, who uses it) and the weights, which algorithms replace; nothing
here runs a graph or knows an integer. Both targets are derived from it, so that a repair is decided once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgewright.artifact.manifest import TensorSpec
from edgewright_converters.export import ExportedGraph

Array = NDArray[Any]
ACTIVATIONS = ("Relu", "Clip")
"""What both targets fuse into the operator before: the tensor between is never quantised."""

_CHANNELS_FIRST = (
    "Conv",
    "ConvTranspose",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "BatchNormalization",
)
_LAYOUTS = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_CHANNELS_LAST = ("Gemm", "MatMul", "LayerNormalization", "Softmax")


@dataclass(frozen=True)
class WeightLayer:
    """An operator that multiplies by a constant: the names of its input, output, weight and bias."""

    name: str
    node: onnx.NodeProto
    input: str
    output: str
    weight: str
    bias: str | None
    channel_axis: int
    """The axis of the weight that runs over output channels."""
    groups: int

    @property
    def depthwise(self) -> bool:
        return self.groups > 1


@dataclass(frozen=True)
class FloatGraph:
    """The nodes of `proto` in order with `weights`, the current values of its initialisers."""

    proto: onnx.ModelProto
    weights: Mapping[str, Array]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fixed: frozenset[str] = frozenset()
    """Initialisers that must stay as they are: another target holds them in a form that is not known."""
    unshared: frozenset[str] = frozenset()
    """Activations that another target does not store: inside what is a single operator there."""

    @classmethod
    def of(cls, graph: ExportedGraph) -> FloatGraph:
        """Read an optimised ONNX graph."""
        proto = onnx.load_from_string(graph.data)
        weights = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
        return cls(proto, weights, graph.inputs, graph.outputs)

    def with_weights(self, changed: Mapping[str, Array]) -> FloatGraph:
        """The same structure with some weights replaced."""
        return replace(self, weights={**self.weights, **changed})

    def feed(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """A sample by source name as the graph takes it."""
        return {
            spec.runtime_name: np.ascontiguousarray(sample[spec.name], np.dtype(spec.dtype))
            for spec in self.inputs
        }

    @property
    def scales(self) -> tuple[str, ...]:
        """Scales and offsets of layer normalisation, which equalisation may change."""
        return tuple(
            name
            for node in self.nodes
            if node.op_type == "LayerNormalization"
            for name in node.input[1:]
            if name in self.weights and self.weights[name].size > 1
        )

    def changeable(self, *initialisers: str | None) -> bool:
        """Whether a repair may replace all of these: what several operators share cannot suit each of them."""
        return not any(
            name in self.fixed or len(self.consumers.get(name, ())) > 1 for name in initialisers if name
        )

    def exported(self) -> ExportedGraph:
        """Serialise with the current weights."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        for initialiser in proto.graph.initializer:
            value = np.asarray(self.weights[initialiser.name], dtype=_dtype(initialiser))
            initialiser.CopyFrom(numpy_helper.from_array(value, initialiser.name))
        return ExportedGraph("onnx", proto.SerializeToString(), self.inputs, self.outputs)

    @property
    def nodes(self) -> tuple[onnx.NodeProto, ...]:
        return tuple(self.proto.graph.node)

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        return {name: node for node in self.nodes for name in node.output}

    @cached_property
    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        graph = self.proto.graph
        return {
            value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (*graph.value_info, *graph.input, *graph.output)
        }

    @cached_property
    def output_names(self) -> frozenset[str]:
        return frozenset(value.name for value in self.proto.graph.output)

    @cached_property
    def shown(self) -> frozenset[str]:
        """The outputs, and what becomes one by being laid out anew: such a tensor has its output's range."""
        found = set(self.output_names)
        for node in reversed(self.nodes):
            if node.op_type in _LAYOUTS and node.output[0] in found:
                found.add(node.input[0])
        return frozenset(found)

    @cached_property
    def float_tensors(self) -> tuple[str, ...]:
        """Every float tensor that depends on an input, in the order in which it is made."""
        graph = self.proto.graph
        kinds = {
            v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)
        }
        names = [v.name for v in graph.input] + [name for node in self.nodes for name in node.output]
        return tuple(n for n in names if kinds.get(n) == onnx.TensorProto.FLOAT and n not in self.weights)

    @cached_property
    def quantised_tensors(self) -> frozenset[str]:
        """Float tensors that a static INT8 model stores: all but those inside a fused activation."""
        fused = set()
        for node in self.nodes:
            if node.op_type in ACTIVATIONS and self.consumers[node.input[0]] == [node]:
                producer = self.producers.get(node.input[0])
                if producer is not None and producer.op_type in ("Conv", "Gemm", "MatMul", "Add"):
                    fused.add(node.input[0])
        return frozenset(self.float_tensors) - fused

    @cached_property
    def channel_axes(self) -> dict[str, int]:
        """The axis over channels of each activation: 1 about convolutions and pools, the last one elsewhere."""
        axes: dict[str, int] = {}
        for node in self.nodes:
            live = [name for name in node.input if name in self.shapes and name not in self.weights]
            if node.op_type in _CHANNELS_FIRST:
                axis = 1
                axes.setdefault(live[0], axis)
            elif node.op_type in _CHANNELS_LAST or not live:
                axis = -1
            else:
                source = max(live, key=lambda name: len(self.shapes[name]))
                same = len(self.shapes[source]) == len(self.shapes.get(node.output[0], ()))
                axis = axes.get(source, -1) if same else -1
            axes.update(dict.fromkeys(node.output, axis))
        for name, shape in self.shapes.items():
            axes.setdefault(name, 1 if len(shape) == 4 else -1)
        return {name: axis % max(len(self.shapes.get(name, ())), 1) for name, axis in axes.items()}

    @cached_property
    def layers(self) -> tuple[WeightLayer, ...]:
        """The convolutions and matrix products by a constant, in order."""
        return tuple(layer for node in self.nodes if (layer := self._layer(node)) is not None)

    def _layer(self, node: onnx.NodeProto) -> WeightLayer | None:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.input) < 2:
            return None
        weight = node.input[1]
        if weight not in self.weights or node.input[0] in self.weights:
            return None
        value = self.weights[weight]
        bias = node.input[2] if len(node.input) > 2 and node.input[2] in self.weights else None
        axis, groups = 0, 1
        if node.op_type == "Gemm":
            axis = 0 if attribute(node, "transB", 0) else 1
        elif node.op_type == "MatMul":
            axis = value.ndim - 1
            bias = self._added_constant(node)
        else:
            groups = attribute(node, "group", 1)
            axis = 0 if node.op_type == "Conv" else 1
            if axis == 1 and groups > 1:
                bias = None  # a scale is for a channel of every group: what goes into one bias would not fit
        if value.ndim < 2 or not np.issubdtype(value.dtype, np.floating):
            return None
        return WeightLayer(
            node.name or node.output[0], node, node.input[0], node.output[0], weight, bias, axis, groups
        )

    def _added_constant(self, node: onnx.NodeProto) -> str | None:
        """The constant vector that is added to a matrix product, its bias in all but name."""
        users = self.consumers.get(node.output[0], [])
        if len(users) != 1 or users[0].op_type != "Add" or node.output[0] in self.output_names:
            return None
        other = next((name for name in users[0].input if name != node.output[0]), "")
        value = self.weights.get(other)
        return other if value is not None and value.ndim == 1 and len(self.consumers[other]) == 1 else None


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value, or the operator's default."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _dtype(initialiser: onnx.TensorProto) -> np.dtype[Any]:
    dtype: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(initialiser.data_type)
    return dtype
