"""A TFLite file opened up: its constants and operators, its activations on a sample, and a changed copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.runtime.quantised_io import raw_input
from edgewright_converters.export import ExportedGraph
from edgewright_converters.quantise.quantised_model import QuantisedModel
from edgewright_converters.silence import silenced

Array = NDArray[Any]


@dataclass(frozen=True)
class TfliteOperator:
    """An operator by the indices of its tensors; −1 stands for an optional input that is not there."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: str = ""
    """As the TFLite schema names it: CONV_2D."""


@dataclass(frozen=True)
class TfliteGraph:
    """The one subgraph of a model: tensor names, float constants by tensor index, operators."""

    names: tuple[str, ...]
    constants: Mapping[int, Array]
    operators: tuple[TfliteOperator, ...]
    grids: Mapping[int, tuple[float, int]] = field(default_factory=dict)
    """Scale and zero point of the activations that are integers, by tensor index."""


def open_tflite(graph: ExportedGraph | QuantisedModel) -> TfliteGraph:
    """Read the structure and the float constants of a TFLite file."""
    model = parsed(graph.data)
    subgraph = model.subgraphs[0]
    constants, grids = {}, {}
    for index, tensor in enumerate(subgraph.tensors):
        data = model.buffers[tensor.buffer].data
        if _is_constant(model, tensor):
            constants[index] = np.frombuffer(bytes(data), np.float32).reshape(_shape(tensor))
        elif data is None or not len(data):
            grid = _grid(tensor)
            if grid is not None:
                grids[index] = grid
    kinds = _kinds()
    operators = tuple(
        TfliteOperator(
            tuple(int(i) for i in op.inputs),
            tuple(int(i) for i in op.outputs),
            kinds.get(model.operatorCodes[op.opcodeIndex].builtinCode, ""),
        )
        for op in subgraph.operators
    )
    return TfliteGraph(tuple(t.name.decode() for t in subgraph.tensors), constants, operators, grids)


def with_constants(graph: ExportedGraph, changed: Mapping[int, Array]) -> ExportedGraph:
    """A copy of the file with some constants replaced, by tensor index.

    Each gets a buffer of its own: equal constants share one, and only one of them may have changed.
    """
    from ai_edge_litert.schema_py_generated import BufferT

    model = parsed(graph.data)
    for index, value in changed.items():
        tensor = model.subgraphs[0].tensors[index]
        buffer = BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value, np.float32).tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    used = {tensor.buffer for subgraph in model.subgraphs for tensor in subgraph.tensors}
    for index in range(len(model.buffers)):
        if index not in used and index not in {entry.buffer for entry in model.metadata or ()}:
            model.buffers[index].data = None
    return written(graph, model)


def with_own_biases(graph: ExportedGraph) -> ExportedGraph:
    """Give every layer a bias of its own, nought where it has none: a repair of one layer moves no other.

    litert-torch lets layers without a bias share one tensor of noughts, and leaves it out of matrix products.
    """
    from ai_edge_litert.schema_py_generated import BufferT, BuiltinOperator, TensorT

    at = {
        BuiltinOperator.CONV_2D: 2,
        BuiltinOperator.DEPTHWISE_CONV_2D: 2,
        BuiltinOperator.FULLY_CONNECTED: 2,
        BuiltinOperator.TRANSPOSE_CONV: 3,
    }
    model = parsed(graph.data)
    subgraph = model.subgraphs[0]
    users = Counter(int(index) for operator in subgraph.operators for index in operator.inputs)
    taken: set[int] = set()
    for operator in subgraph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        position = at.get(max(code.builtinCode, code.deprecatedBuiltinCode))
        if position is None or not _is_constant(model, subgraph.tensors[operator.inputs[1]]):
            continue
        if users[int(operator.inputs[1])] > 1:
            continue  # the steps of an unrolled loop, say: what several operators share is not repaired
        bias = int(operator.inputs[position]) if len(operator.inputs) > position else -1
        if bias >= 0 and bias not in taken:
            taken.add(bias)
            continue
        output = subgraph.tensors[operator.outputs[0]]
        tensor, buffer = TensorT(), BufferT()
        tensor.name, tensor.type = output.name + b"_bias", _float32()
        tensor.shape, tensor.buffer = np.array(_shape(output)[-1:], np.int32), len(model.buffers)
        shared = model.buffers[subgraph.tensors[bias].buffer].data if bias >= 0 else None
        buffer.data = np.zeros(4 * _shape(output)[-1], np.uint8) if shared is None else shared
        model.buffers.append(buffer)
        operator.inputs = np.array([*operator.inputs[:position], len(subgraph.tensors)], np.int32)
        subgraph.tensors.append(tensor)
    return written(graph, model)


def activations(
    graph: ExportedGraph | QuantisedModel, samples: Iterable[Mapping[str, Array]], opened: TfliteGraph
) -> Iterator[dict[int, Array]]:
    """Every activation of the graph by tensor index, float or as the integers stored, one sample after another.

    `samples` are by source name, in the source's axis order. The arrays are views: use them before the next.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with silenced():
        # A delegate would fuse operators, and with them the tensors in between.
        interpreter = Interpreter(
            model_content=graph.data,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
    details = {str(d["name"]): d for d in interpreter.get_input_details()}
    wanted = [
        int(d["index"])
        for d in interpreter.get_tensor_details()
        if (d["dtype"] is np.float32 or int(d["index"]) in opened.grids)
        # Past the file's own tensors come those that kernels make for themselves.
        and int(d["index"]) < len(opened.names)
        and int(d["index"]) not in opened.constants
    ]
    for sample in samples:
        for spec in graph.inputs:
            interpreter.set_tensor(details[spec.runtime_name]["index"], raw_input(sample[spec.name], spec))
        interpreter.invoke()
        made = {}
        for index in wanted:
            try:
                made[index] = interpreter.get_tensor(index)
            except ValueError:  # a scratch tensor, which the operator before it has released
                continue
        yield made


def parsed(data: bytes) -> Any:
    """The file as objects of the TFLite schema."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(data))


def written(graph: ExportedGraph, model: Any) -> ExportedGraph:
    """`graph` with a changed `model` as its file."""
    from ai_edge_litert.tools import flatbuffer_utils

    with silenced():
        data = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return ExportedGraph(graph.format, data, graph.inputs, graph.outputs)


def _grid(tensor: Any) -> tuple[float, int] | None:
    """Scale and zero point of a tensor that has one of each."""
    found = tensor.quantization
    if found is None or found.scale is None or len(found.scale) != 1:
        return None
    return float(found.scale[0]), int(found.zeroPoint[0])


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0 and tensor.type == _float32()


def _kinds() -> dict[int, str]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}


def _float32() -> int:
    from ai_edge_litert.schema_py_generated import TensorType

    return int(TensorType.FLOAT32)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in tensor.shape) if tensor.shape is not None else ()
