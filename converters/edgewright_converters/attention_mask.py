"""Attention masks of −∞ and of −10⁹ or −3.4·10³⁸, cut to what an 8-bit grid can hold beside the scores.

A mask only has to make e^x vanish. Of n keys all but one may be masked; together they weigh less than half a step
of an 8-bit softmax, 1/512, where each lies ln(512·n) below the row's largest score (11 for 128 keys). So every
constant that reaches a softmax as a mask is set to one value, the same in both formats: far enough below twice the
largest score, and close enough for the scores to keep their steps. `observation` cuts the range likewise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import ModelFormat
from edgewright_converters.execution import Execution
from edgewright_converters.export import ExportedGraph
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.observation import NEGLIGIBLE
from edgewright_converters.tflite_graph import open_tflite, with_constants

Array = NDArray[Any]
LARGE = -1e4
"""What no score is: 16 bits hold no less, and models are trained with masks of that size and more."""
ALIKE = 1e-3
"""Of an output's largest value: far under a step of 8 bits."""
_ONNX = ("Add", "Cast", "Expand", "Identity", "Max", "Min", "Mul", "Reshape", "Slice", "Squeeze", "Transpose",
         "Unsqueeze", "Where")  # fmt: skip
_TFLITE = ("ADD", "BROADCAST_TO", "CAST", "EXPAND_DIMS", "MAXIMUM", "MINIMUM", "MUL", "RESHAPE", "SELECT",
           "SELECT_V2", "SLICE", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE")  # fmt: skip


def cut_masks(
    exported: Mapping[ModelFormat, ExportedGraph], examples: Sequence[Mapping[str, Array]]
) -> dict[ModelFormat, ExportedGraph]:
    """The graphs with their masks cut; the same where there is none, or no ONNX graph to tell the scores by."""
    if "onnx" not in exported:
        return dict(exported)
    graph = FloatGraph.of(exported["onnx"])
    masks = _onnx_masks(graph)
    if not masks:
        return dict(exported)
    value = _mask_value(graph, masks, examples)
    cut = {name: _cut(graph.weights[name], value) for name in masks}
    finite = graph.with_weights(cut)
    if not _alike(graph, finite, examples):
        return dict(exported)
    found: dict[ModelFormat, ExportedGraph] = {**exported, "onnx": finite.exported()}
    if "tflite" in exported:
        opened = open_tflite(exported["tflite"])
        makers = {op.outputs[0]: (op.kind, op.inputs) for op in opened.operators if op.outputs}
        starts = [op.inputs[0] for op in opened.operators if op.kind == "SOFTMAX"]
        indices = _upstream(starts, makers, opened.constants, _TFLITE)
        constants = {index: _cut(opened.constants[index], value) for index in indices}
        found["tflite"] = with_constants(exported["tflite"], constants)
    return found


def _alike(graph: FloatGraph, finite: FloatGraph, examples: Sequence[Mapping[str, Array]]) -> bool:
    """Whether the outputs stay. They do not where a row has nothing but masked scores, of which infinity makes
    NaN, and the model goes on with nought in its place."""
    one, other = Execution(graph), Execution(finite)
    for example in examples:
        fed = graph.feed(example)
        expected, made = one.run(fed, lambda *_: None), other.run(fed, lambda *_: None)
        for name, value in expected.items():
            if not np.allclose(
                made[name], value, rtol=0.0, atol=ALIKE * float(np.abs(value).max(initial=0.0))
            ):
                return False
    return True


def _onnx_masks(graph: FloatGraph) -> set[str]:
    makers = {name: (node.op_type, tuple(node.input)) for name, node in graph.producers.items()}
    starts = [node.input[0] for node in graph.nodes if node.op_type == "Softmax"]
    floats = {n: w for n, w in graph.weights.items() if w.size and np.issubdtype(w.dtype, np.floating)}
    return _upstream(starts, makers, floats, _ONNX)


def _upstream(
    starts: Iterable[Any],
    makers: Mapping[Any, tuple[str, Sequence[Any]]],
    constants: Mapping[Any, Array],
    through: Sequence[str],
) -> set[Any]:
    """The large negative constants that reach a softmax through operators that mask or lay out."""
    waiting, seen, found = list(starts), set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in constants:
            if constants[name].size and constants[name].min() <= LARGE:
                found.add(name)
        elif name in makers and makers[name][0] in through:
            waiting.extend(makers[name][1])
    return found


def _mask_value(graph: FloatGraph, masks: set[str], examples: Sequence[Mapping[str, Array]]) -> float:
    """Below what any row of scores can miss, with as much again for data that was not seen; a power of two.

    The scores are looked at with the masks lifted: a masked score may be the largest.
    """
    lifted = Execution(graph.with_weights({name: _cut(graph.weights[name], 0.0) for name in masks}))
    needed = 0.0
    softmax = {node.input[0] for node in graph.nodes if node.op_type == "Softmax"}

    def visit(name: str, value: Array) -> None:
        nonlocal needed
        if name in softmax and value.size:
            largest = float(np.abs(value).max())
            needed = max(needed, 2 * largest + math.log(value.shape[-1] / NEGLIGIBLE))

    for example in examples:
        lifted.run(graph.feed(example), visit)
    return -(2.0 ** math.ceil(math.log2(2 * needed)))


def _cut(constant: Array, value: float) -> Array:
    return np.where(constant <= LARGE, np.float32(value), constant).astype(np.float32)
