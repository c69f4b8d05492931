"""Holds an ONNX file against what TensorRT takes of an explicitly quantised network.

The rules are those in `edgewright_profiles/delegates/tensorrt.toml`, with their sources; where Q/DQ pairs go
is as NVIDIA's documentation of explicit quantisation recommends: before all inputs of a weighted operator,
and not between it and its activation. TensorRT itself is not run, so that a file which holds them may still
be refused by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgewright_converters.float_graph import ACTIVATIONS
from edgewright_profiles import Delegate

IR_VERSION = 10
"""Of ONNX 1.16, with which the parser of TensorRT 10.3 is built."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PAIR = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Breach:
    """One rule that a file breaks, and where."""

    rule: str
    node: str

    def __str__(self) -> str:
        return f"{self.rule} ({self.node})" if self.node else self.rule


@dataclass(frozen=True)
class TensorRtFile:
    """A quantised ONNX file as TensorRT's parser meets it."""

    proto: onnx.ModelProto

    @classmethod
    def of(cls, data: bytes) -> TensorRtFile:
        return cls(onnx.load_from_string(data))

    @cached_property
    def constants(self) -> dict[str, NDArray[np.generic]]:
        return {i.name: numpy_helper.to_array(i) for i in self.proto.graph.initializer}

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        return {name: node for node in self.proto.graph.node for name in node.output}

    @property
    def refused(self) -> frozenset[str]:
        """Nodes that TensorRT has no layer for, by name."""
        return frozenset(n.name for n in self.proto.graph.node if n.domain not in ("", "ai.onnx"))

    @cached_property
    def integer(self) -> frozenset[str]:
        """Weighted operators whose inputs all come from a DequantizeLinear: those compute in INT8."""
        return frozenset(
            node.name
            for node in self.proto.graph.node
            if node.op_type in WEIGHTED and all(self._dequantised(name) for name in node.input[:2])
        )

    def breaches(self, delegate: Delegate) -> tuple[Breach, ...]:
        """Every rule that is broken, in the order of the graph."""
        return (*self._of_file(delegate), *self._of_nodes(delegate))

    def _of_file(self, delegate: Delegate) -> Iterator[Breach]:
        opset = next((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), 0)
        if delegate.opsets and not delegate.opsets[0] <= opset <= delegate.opsets[1]:
            yield Breach(f"opset {opset} is not one of {delegate.opsets[0]} to {delegate.opsets[1]}", "")
        if self.proto.ir_version > IR_VERSION:
            yield Breach(f"version {self.proto.ir_version} of the file format is newer than {IR_VERSION}", "")
        for value in (*self.proto.graph.input, *self.proto.graph.output):
            if value.type.tensor_type.elem_type in (TensorProto.INT8, TensorProto.UINT8):
                yield Breach("an input or output is an integer of 8 bits; it has to be float", value.name)
            if any(not d.dim_value for d in value.type.tensor_type.shape.dim):
                yield Breach("an input or output has no fixed size", value.name)

    def _of_nodes(self, delegate: Delegate) -> Iterator[Breach]:
        known = delegate.limits
        for node in self.proto.graph.node:
            if node.domain not in ("", "ai.onnx"):
                yield Breach(f"operator {node.domain}::{node.op_type} is not of ONNX", node.name)
            elif node.op_type not in known:
                yield Breach(f"operator {node.op_type} is not one that TensorRT has", node.name)
            elif node.op_type in _PAIR:
                yield from self._of_pair(node)
            elif node.op_type in WEIGHTED:
                quantised = [self._dequantised(name) for name in node.input[:2]]
                if any(quantised) and not all(quantised):
                    yield Breach(
                        "one input of a weighted operator is quantised and the other is not", node.name
                    )
            elif node.op_type in ACTIVATIONS and self._between(node.input[0]):
                yield Breach("an activation is kept from its layer by a Q/DQ pair", node.name)

    def _of_pair(self, node: onnx.NodeProto) -> Iterator[Breach]:
        stored = self.constants.get(node.input[0])
        scale = self.constants.get(node.input[1])
        zero_point = self.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if scale is None or not bool(np.all(scale.astype(np.float64) > 0)):
            yield Breach("a scale is computed, or not positive", node.name)
        elif scale.size > 1 and stored is None:
            yield Breach("an activation has a scale for each channel", node.name)
        if zero_point is None:
            yield Breach("a zero point, which says the type, is missing", node.name)
        elif zero_point.dtype != np.int8:
            yield Breach(
                f"{zero_point.dtype} is quantised; TensorRT takes int8, and a bias in float", node.name
            )
        elif zero_point.any():
            yield Breach("a zero point is not nought", node.name)
        if stored is not None and stored.ndim == 0:
            yield Breach("a scalar is quantised", node.name)

    def _dequantised(self, name: str) -> bool:
        producer = self.producers.get(name)
        return producer is not None and producer.op_type == "DequantizeLinear"

    def _between(self, name: str) -> bool:
        """Whether a tensor is a weighted operator's result that went through a Q/DQ pair."""
        for kind in reversed(_PAIR):
            producer = self.producers.get(name)
            if producer is None or producer.op_type != kind:
                return False
            name = producer.input[0]
        maker = self.producers.get(name)
        return maker is not None and maker.op_type in WEIGHTED


def in_words(breaches: tuple[Breach, ...], shown: int = 3) -> str:
    """The first of many breaches in words, and how many there are beside them."""
    more = len(breaches) - shown
    return "; ".join(map(str, breaches[:shown])) + (f"; and {more} more" if more > 0 else "")
