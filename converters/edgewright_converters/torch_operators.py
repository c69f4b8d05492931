"""The operators of an optimised ONNX graph as torch has them, for gradients, which ONNX Runtime has not.

Only what the exporter makes of the usual networks is here. Whoever runs a graph so compares what comes out with
ONNX Runtime first: an attribute that is not looked at below shows there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from edgewright_converters.float_graph import attribute

Value = Any
"""A tensor, or an array for a constant that is no weight; None for an input that is left out."""
Operator = Callable[[onnx.NodeProto, Sequence[Value]], "Tensor | tuple[Tensor, ...]"]


def run_node(node: onnx.NodeProto, values: Mapping[str, Value]) -> dict[str, Tensor]:
    """What the node makes, by name. `values` holds its inputs; raises `KeyError` for an unknown operator."""
    made = OPERATORS[node.op_type](node, [values[name] if name else None for name in node.input])
    return dict(zip(node.output, (made,) if isinstance(made, Tensor) else made, strict=False))


def _tensor(value: Value) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))


def _integers(value: Value) -> list[int]:
    return [int(one) for one in np.ravel(value)]


def _padding(node: onnx.NodeProto, rank: int) -> list[int]:
    """The pads of the axes as `functional.pad` takes them, the last axis first."""
    pads = attribute(node, "pads", [0] * (2 * rank))
    return [amount for i in reversed(range(rank)) for amount in (pads[i], pads[i + rank])]


def _conv(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    x, weight, *rest = inputs
    rank = weight.ndim - 2
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    made: Tensor = convolve(
        functional.pad(x, _padding(node, rank)),
        weight,
        rest[0] if rest else None,
        tuple(attribute(node, "strides", [1] * rank)),
        0,
        tuple(attribute(node, "dilations", [1] * rank)),
        attribute(node, "group", 1),
    )
    return made


def _conv_transpose(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    x, weight, *rest = inputs
    rank = weight.ndim - 2
    convolve = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[
        rank - 1
    ]
    made: Tensor = convolve(
        x,
        weight,
        rest[0] if rest else None,
        tuple(attribute(node, "strides", [1] * rank)),
        tuple(attribute(node, "pads", [0] * (2 * rank))[:rank]),
        tuple(attribute(node, "output_padding", [0] * rank)),
        attribute(node, "group", 1),
        tuple(attribute(node, "dilations", [1] * rank)),
    )
    return made


def _gemm(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    x, weight, *rest = inputs
    x = x.T if attribute(node, "transA", 0) else x
    made: Tensor = attribute(node, "alpha", 1.0) * (
        x @ (weight.T if attribute(node, "transB", 0) else weight)
    )
    return made + attribute(node, "beta", 1.0) * rest[0] if rest else made


def _clip(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    x, low, high = (*inputs, None, None)[:3]
    return torch.clamp(x, *(None if bound is None else _tensor(bound) for bound in (low, high)))


def _pool(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    (x,) = inputs
    kernel = attribute(node, "kernel_shape", [])
    rank = len(kernel)
    strides = tuple(attribute(node, "strides", [1] * rank))
    padding, ceil = _padding(node, rank), bool(attribute(node, "ceil_mode", 0))
    if node.op_type == "MaxPool":
        pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
        padded = functional.pad(x, padding, value=-torch.inf)
        dilations = tuple(attribute(node, "dilations", [1] * rank))
        largest: Tensor = pool(padded, tuple(kernel), strides, 0, dilations, ceil)
        return largest
    average = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    counted = bool(attribute(node, "count_include_pad", 0))
    before = tuple(padding[::-2][i] for i in range(rank))
    mean: Tensor = average(x, tuple(kernel), strides, before, ceil, counted)
    return mean


def _mean(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    axes = _integers(inputs[1]) if len(inputs) > 1 else list(attribute(node, "axes", []))
    keep = bool(attribute(node, "keepdims", 1))
    made: Tensor = inputs[0].mean(axes or list(range(inputs[0].ndim)), keepdim=keep)
    return made


def _norm(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    x, scale, *rest = inputs
    axis = attribute(node, "axis", -1) % x.ndim
    made = functional.layer_norm(x, x.shape[axis:], eps=attribute(node, "epsilon", 1e-5)) * scale
    return made + rest[0] if rest else made


def _reshape(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    x, shape = inputs
    sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(_integers(shape))]
    return x.reshape(sizes)


def _flatten(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    (x,) = inputs
    axis = attribute(node, "axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _axes(node: onnx.NodeProto, inputs: Sequence[Value]) -> list[int]:
    return _integers(inputs[1]) if len(inputs) > 1 else list(attribute(node, "axes", []))


def _squeeze(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    axes = tuple(_axes(node, inputs))
    return inputs[0].squeeze(axes) if axes else inputs[0].squeeze()


def _unsqueeze(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    made: Tensor = inputs[0]
    rank = made.ndim + len(_axes(node, inputs))
    for axis in sorted(axis % rank for axis in _axes(node, inputs)):
        made = made.unsqueeze(axis)
    return made


def _slice(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    x, starts, ends, axes, steps = (*inputs, None, None)[:5]
    first, last = _integers(starts), _integers(ends)
    along = range(len(first)) if axes is None else _integers(axes)
    strides = [1] * len(first) if steps is None else _integers(steps)
    places = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, first, last, strides, strict=True):
        places[axis] = slice(start, end, step)
    return x[tuple(places)]


def _split(node: onnx.NodeProto, inputs: Sequence[Value]) -> tuple[Tensor, ...]:
    x, axis = inputs[0], attribute(node, "axis", 0)
    sizes = _integers(inputs[1]) if len(inputs) > 1 else -(-x.shape[axis] // len(node.output))
    return tuple(torch.split(x, sizes, axis))


def _pad(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    x, pads, value, axes = (*inputs, None, None)[:4]
    amounts, rank = _integers(pads), x.ndim
    along = range(rank) if axes is None else [axis % rank for axis in _integers(axes)]
    by_axis = {axis: (amounts[i], amounts[i + len(amounts) // 2]) for i, axis in enumerate(along)}
    mode = attribute(node, "mode", b"constant").decode()
    padding = list(itertools.chain(*(by_axis.get(axis, (0, 0)) for axis in reversed(range(rank)))))
    filler = 0.0 if value is None else float(np.ravel(value)[0])
    return (
        functional.pad(x, padding, mode, filler) if mode == "constant" else functional.pad(x, padding, mode)
    )


def _gather(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    data, index = inputs
    axis, chosen = attribute(node, "axis", 0) % data.ndim, _tensor(index).long()
    picked = data.index_select(axis, chosen.reshape(-1))
    return picked.reshape(*data.shape[:axis], *chosen.shape, *data.shape[axis + 1 :])


def _gelu(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    return functional.gelu(inputs[0], approximate=attribute(node, "approximate", b"none").decode())


def _hard_sigmoid(node: onnx.NodeProto, inputs: Sequence[Value]) -> Tensor:
    return torch.clamp(attribute(node, "alpha", 0.2) * inputs[0] + attribute(node, "beta", 0.5), 0.0, 1.0)


OPERATORS: Mapping[str, Operator] = {
    "Add": lambda node, inputs: _tensor(inputs[0]) + _tensor(inputs[1]),
    "AveragePool": _pool,
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat([_tensor(x) for x in inputs], attribute(node, "axis", 0)),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": lambda node, inputs: _tensor(inputs[0]) / _tensor(inputs[1]),
    "Erf": lambda node, inputs: torch.erf(inputs[0]),
    "Exp": lambda node, inputs: torch.exp(inputs[0]),
    "Expand": lambda node, inputs: inputs[0] * torch.ones(_integers(inputs[1])),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, inputs: inputs[0].mean(
        tuple(range(2, inputs[0].ndim)), keepdim=True
    ),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node, inputs: functional.hardswish(inputs[0]),
    "Identity": lambda node, inputs: _tensor(inputs[0]),
    "LayerNormalization": _norm,
    "LeakyRelu": lambda node, inputs: functional.leaky_relu(inputs[0], attribute(node, "alpha", 0.01)),
    "MatMul": lambda node, inputs: _tensor(inputs[0]) @ _tensor(inputs[1]),
    "MaxPool": _pool,
    "Mul": lambda node, inputs: _tensor(inputs[0]) * _tensor(inputs[1]),
    "Neg": lambda node, inputs: -inputs[0],
    "Pad": _pad,
    "Pow": lambda node, inputs: torch.pow(inputs[0], _tensor(inputs[1])),
    "ReduceMean": _mean,
    "Relu": lambda node, inputs: torch.relu(inputs[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda node, inputs: torch.sigmoid(inputs[0]),
    "Slice": _slice,
    "Softmax": lambda node, inputs: torch.softmax(inputs[0], attribute(node, "axis", -1)),
    "Split": _split,
    "Sqrt": lambda node, inputs: torch.sqrt(inputs[0]),
    "Squeeze": _squeeze,
    "Sub": lambda node, inputs: _tensor(inputs[0]) - _tensor(inputs[1]),
    "Tanh": lambda node, inputs: torch.tanh(inputs[0]),
    "Transpose": lambda node, inputs: inputs[0].permute(*attribute(node, "perm", [])),
    "Unsqueeze": _unsqueeze,
}  # fmt: skip
"""By their names in ONNX. A mathematical function that is missing is a line here."""
