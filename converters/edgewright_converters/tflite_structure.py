"""A TFLite file as a delegate sees it: each operator with the shapes, types and constants of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.operators import tflite_macs
from edgewright_converters.silence import silenced

Array = NDArray[Any]
_SMALL = 64
"""Elements of a constant that is kept: axes, paddings and shapes, no weights."""


@dataclass(frozen=True)
class StructureTensor:
    """A tensor; `scales` and `zero_points` are empty for one that is not quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool
    fixed: bool
    """Whether its shape is known before it runs."""
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    value: Array | None = None
    """Of a small constant of integers."""


@dataclass(frozen=True)
class StructureOperator:
    """An operator by its name in the TFLite schema; an optional input that is not there is None."""

    name: str
    kind: str
    inputs: tuple[StructureTensor | None, ...]
    outputs: tuple[StructureTensor, ...]
    options: Mapping[str, Any]
    """Its attributes as the schema names them."""
    macs: int
    """Multiply-accumulates."""

    @property
    def live(self) -> tuple[StructureTensor, ...]:
        """Its activations: inputs that are no constants, and outputs."""
        return (*(t for t in self.inputs if t is not None and not t.constant), *self.outputs)

    def integers(self, index: int) -> tuple[int, ...]:
        """The integers of a constant input; none where there is no such constant."""
        tensor = self.inputs[index] if len(self.inputs) > index else None
        return () if tensor is None or tensor.value is None else tuple(int(n) for n in tensor.value.ravel())


@dataclass(frozen=True)
class TfliteStructure:
    """The operators of a file in the order in which they run, and the tensors it takes and gives."""

    operators: tuple[StructureOperator, ...]
    inputs: tuple[StructureTensor, ...]
    outputs: tuple[StructureTensor, ...]

    @property
    def layout_transposes(self) -> tuple[StructureOperator, ...]:
        """What turns channels last into channels first or back: no model asks for it, a layout does."""
        turns = {(0, 2, 3, 1), (0, 3, 1, 2)}
        return tuple(o for o in self.operators if o.kind == "TRANSPOSE" and o.integers(1) in turns)


def tflite_structure(data: bytes) -> TfliteStructure:
    """Read the one subgraph of a file."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType
    from ai_edge_litert.tools import flatbuffer_utils

    with silenced():
        model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    kinds = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
    dtypes = {code: name.lower() for name, code in vars(TensorType).items() if isinstance(code, int)}
    subgraph = model.subgraphs[0]
    tensors = [_tensor(tensor, model.buffers[tensor.buffer].data, dtypes) for tensor in subgraph.tensors]
    operators = []
    for operator in subgraph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
        inputs = tuple(tensors[i] if i >= 0 else None for i in operator.inputs)
        outputs = tuple(tensors[i] for i in operator.outputs)
        shapes = [[{"shape": np.array(t.shape)} for t in some if t] for some in (inputs, outputs)]
        options = vars(operator.builtinOptions) if operator.builtinOptions is not None else {}
        macs = tflite_macs(kind, *shapes)[1]
        operators.append(StructureOperator(outputs[0].name, kind, inputs, outputs, options, macs))
    return TfliteStructure(
        tuple(operators),
        tuple(tensors[i] for i in subgraph.inputs),
        tuple(tensors[i] for i in subgraph.outputs),
    )


def _tensor(tensor: Any, data: Any, dtypes: Mapping[int, str]) -> StructureTensor:
    dtype = dtypes[tensor.type]
    shape = tuple(int(n) for n in tensor.shape) if tensor.shape is not None else ()
    signature = tensor.shapeSignature
    grid = tensor.quantization
    value = None
    constant = data is not None and len(data) > 0
    if constant and dtype in ("int32", "int64") and np.prod(shape) <= _SMALL:
        value = np.frombuffer(bytes(data), dtype)
    return StructureTensor(
        tensor.name.decode().rsplit("/", 1)[-1],
        shape,
        dtype,
        constant,
        signature is None or all(n >= 0 for n in signature),
        tuple(float(s) for s in grid.scale) if grid is not None and grid.scale is not None else (),
        tuple(int(z) for z in grid.zeroPoint) if grid is not None and grid.zeroPoint is not None else (),
        value,
    )
