"""Takes out of a TFLite graph the transposes that only its layout asks for.

litert-torch keeps a network channels last, and turns a tensor back to channels first before a reduction over
height and width, as a global average pool written as a mean: its axes are numbered as in PyTorch. A reduction
does not need the turn; over the same axes by their other numbers it gives the same result. On an Edge TPU,
and in time anywhere, the transpose is dear.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewright_converters.export import ExportedGraph
from edgewright_converters.tflite_graph import parsed, written

_REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")


def without_turned_reductions(graph: ExportedGraph) -> ExportedGraph:
    """The graph with each reduction of a transposed tensor taken over the tensor itself, where that is equal."""
    from ai_edge_litert.schema_py_generated import BufferT, BuiltinOperator, TensorT

    codes = {getattr(BuiltinOperator, name) for name in _REDUCTIONS}
    model = parsed(graph.data)
    subgraph = model.subgraphs[0]

    def code(operator: Any) -> int:
        found = model.operatorCodes[operator.opcodeIndex]
        return int(max(found.builtinCode, found.deprecatedBuiltinCode))

    def integers(index: int) -> list[int]:
        data = model.buffers[subgraph.tensors[index].buffer].data
        return [] if data is None else np.frombuffer(bytes(data), np.int32).tolist()

    turns = {int(o.outputs[0]): o for o in subgraph.operators if code(o) == BuiltinOperator.TRANSPOSE}
    changed = False
    for operator in subgraph.operators:
        turn = turns.get(int(operator.inputs[0])) if code(operator) in codes else None
        if turn is None:
            continue
        order, axes = integers(int(turn.inputs[1])), integers(int(operator.inputs[1]))
        gone = {order[axis] for axis in axes} if order and axes else set()
        kept = [axis for axis in order if axis not in gone]
        if not gone or operator.builtinOptions.keepDims or kept != sorted(kept):
            continue
        own, buffer = TensorT(), BufferT()
        buffer.data = np.frombuffer(np.array(sorted(gone), np.int32).tobytes(), np.uint8)
        model.buffers.append(buffer)
        axis_tensor = subgraph.tensors[operator.inputs[1]]
        own.name, own.type, own.buffer = (
            axis_tensor.name + b"_turned",
            axis_tensor.type,
            len(model.buffers) - 1,
        )
        own.shape = np.array([len(gone)], np.int32)
        operator.inputs = np.array([turn.inputs[0], len(subgraph.tensors)], np.int32)
        subgraph.tensors.append(own)
        changed = True
    if not changed:
        return graph
    used = {int(i) for o in subgraph.operators for i in o.inputs} | {int(i) for i in subgraph.outputs}
    subgraph.operators = [
        o for o in subgraph.operators if code(o) != BuiltinOperator.TRANSPOSE or int(o.outputs[0]) in used
    ]
    return written(graph, model)
