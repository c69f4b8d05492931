"""Takes out of a TFLite graph the transposes that only its layout asks for.

litert-torch keeps a network channels last, and turns a tensor back to channels first where PyTorch's order of
the axes shows: before a mean over height and width, and before an image is flattened for a matrix product.
Neither needs the turn: the mean goes over the same axes by their other numbers, the product takes the columns
of its weight in the other order. On an Edge TPU, and in time anywhere, the transpose is dear.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.export import ExportedGraph
from edgewright_converters.tflite_graph import parsed, written

CHANNELS_FIRST = [0, 3, 1, 2]
"""The turn from channels last, as TFLite's TRANSPOSE writes it."""
_REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")


def without_layout_transposes(graph: ExportedGraph) -> ExportedGraph:
    """The same function with fewer transposes; the graph itself where none can go."""
    model = _Model(parsed(graph.data))
    changed = [
        model.reduce_unturned(operator) or model.flatten_unturned(operator)
        for operator in list(model.operators)
    ]
    if not any(changed):
        return graph
    model.drop_what_is_unused()
    return written(graph, model.schema)


class _Model:
    """The one subgraph of a file while it is changed."""

    def __init__(self, schema: Any) -> None:
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        self.schema = schema
        self.subgraph = schema.subgraphs[0]
        self.kinds = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
        self.makers = {int(o.outputs[0]): o for o in self.operators}
        self.uses = Counter(int(i) for o in self.operators for i in o.inputs)
        self.uses.update(int(i) for i in self.subgraph.outputs)

    @property
    def operators(self) -> list[Any]:
        operators: list[Any] = self.subgraph.operators
        return operators

    def kind(self, operator: Any) -> str:
        code = self.schema.operatorCodes[operator.opcodeIndex]
        return str(self.kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), ""))

    def maker(self, index: int, kind: str) -> Any | None:
        """The operator that makes a tensor, if it is of that kind."""
        found = self.makers.get(int(index))
        return found if found is not None and self.kind(found) == kind else None

    def constant(self, index: int, dtype: type) -> NDArray[Any] | None:
        tensor = self.subgraph.tensors[index]
        data = self.schema.buffers[tensor.buffer].data
        return None if data is None or not len(data) else np.frombuffer(bytes(data), dtype)

    def instead(self, index: int, value: NDArray[Any]) -> int:
        """The tensor that holds `value` in place of a constant: itself, unless others use it too."""
        from ai_edge_litert.schema_py_generated import BufferT, TensorT

        buffer, tensor = BufferT(), self.subgraph.tensors[index]
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        if self.uses[index] > 1:
            old, tensor, index = tensor, TensorT(), len(self.subgraph.tensors)
            tensor.name, tensor.type = old.name + b"_turned", old.type
            self.subgraph.tensors.append(tensor)
        self.schema.buffers.append(buffer)
        tensor.shape, tensor.buffer = np.array(value.shape, np.int32), len(self.schema.buffers) - 1
        return index

    def reduce_unturned(self, operator: Any) -> bool:
        """Take a reduction of a transposed tensor over the tensor itself, where that gives the same."""
        turn = self.maker(operator.inputs[0], "TRANSPOSE") if self.kind(operator) in _REDUCTIONS else None
        if turn is None or operator.builtinOptions.keepDims:
            return False
        order, axes = self.constant(turn.inputs[1], np.int32), self.constant(operator.inputs[1], np.int32)
        if order is None or axes is None:
            return False
        gone = {int(order[axis]) for axis in axes}
        kept = [int(axis) for axis in order if int(axis) not in gone]
        if kept != sorted(kept):
            return False
        own = self.instead(int(operator.inputs[1]), np.array(sorted(gone), np.int32))
        operator.inputs = np.array([turn.inputs[0], own], np.int32)
        return True

    def flatten_unturned(self, operator: Any) -> bool:
        """Let a matrix product take an image flattened channels last, by its weight's columns in that order."""
        flat = self.maker(operator.inputs[0], "RESHAPE") if self.kind(operator) == "FULLY_CONNECTED" else None
        turn = self.maker(flat.inputs[0], "TRANSPOSE") if flat is not None else None
        if flat is None or turn is None or self.uses[int(flat.outputs[0])] > 1:
            return False
        order = self.constant(turn.inputs[1], np.int32)
        columns, image = (self.subgraph.tensors[i] for i in (operator.inputs[1], turn.outputs[0]))
        weight = self.constant(operator.inputs[1], np.float32) if columns.type == _float32() else None
        shape = [int(n) for n in image.shape]
        if order is None or order.tolist() != CHANNELS_FIRST or weight is None or shape[0] != 1:
            return False
        rows, width = (int(n) for n in columns.shape)
        if width != math.prod(shape):
            return False
        turned = weight.reshape(rows, *shape[1:]).transpose(0, 2, 3, 1).reshape(rows, width)
        own = self.instead(int(operator.inputs[1]), turned)
        flat.inputs = np.array([turn.inputs[0], *flat.inputs[1:]], np.int32)
        operator.inputs = np.array([operator.inputs[0], own, *operator.inputs[2:]], np.int32)
        return True

    def drop_what_is_unused(self) -> None:
        """Transposes whose result nobody takes, and the bytes of constants that were replaced."""
        used = {int(i) for o in self.operators for i in o.inputs} | {int(i) for i in self.subgraph.outputs}
        self.subgraph.operators = [
            o for o in self.operators if self.kind(o) != "TRANSPOSE" or int(o.outputs[0]) in used
        ]
        held = {tensor.buffer for subgraph in self.schema.subgraphs for tensor in subgraph.tensors}
        held |= {entry.buffer for entry in self.schema.metadata or ()}
        for index, buffer in enumerate(self.schema.buffers):
            if index not in held:
                buffer.data = None


def _float32() -> int:
    from ai_edge_litert.schema_py_generated import TensorType

    return int(TensorType.FLOAT32)
