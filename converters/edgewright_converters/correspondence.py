"""Which constant and which activation of a TFLite graph is which of the ONNX graph of the same model.

Both are exported from one source by different tools under different names, layouts and operators; what they
share is values. A weight is recognised by its elements in some order of the axes, a bias by the operator that
holds its weight, an activation by what it takes on for the same samples. What is decided once on the ONNX graph
(ranges, repaired weights) is carried over with it; a layer that is not recognised is not repaired in either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.execution import Execution
from edgewright_converters.export import ExportedGraph
from edgewright_converters.float_graph import FloatGraph, WeightLayer
from edgewright_converters.tflite_graph import TfliteGraph, activations, open_tflite, with_constants

Array = NDArray[Any]
CLOSE = 1e-4
"""Relative to a tensor's largest value: batch norm is folded in another order of operations in either tool."""
CLOSE_ACTIVATION = 2e-3
"""The same for activations, in which those differences add up over the layers."""


@dataclass(frozen=True)
class Placement:
    """Where an ONNX constant lies in the TFLite file, and the order of its axes (of length above 1) there."""

    tensor: int
    order: tuple[int, ...]
    shape: tuple[int, ...]
    split: tuple[int, ...] | None = None
    """The axes that an axis of a flattened image is split into before they are ordered."""

    def placed(self, value: Array) -> Array:
        """The constant as the TFLite file lays it out."""
        split = np.squeeze(value) if self.split is None else value.reshape(self.split)
        return split.transpose(self.order).reshape(self.shape)


@dataclass(frozen=True)
class Correspondence:
    """Placements by ONNX initialiser, and the ONNX tensor that each TFLite activation is, by its name there."""

    constants: Mapping[str, tuple[Placement, ...]]
    activations: Mapping[str, str]
    unmatched: frozenset[str]
    """TFLite activations that are no tensor of the ONNX graph."""

    def covers(self, *initialisers: str | None) -> bool:
        """Whether all of the named constants have a place."""
        return all(name is None or name in self.constants for name in initialisers)


def correspond(
    execution: Execution, tflite: ExportedGraph, samples: Sequence[Mapping[str, Array]]
) -> Correspondence:
    """Match the graphs of one model on a few samples, which are by source name."""
    opened = open_tflite(tflite)
    constants = _constants(execution.graph, opened)
    matched, unmatched = _activations(execution, tflite, opened, samples)
    return Correspondence(constants, matched, unmatched)


def carried_over(graph: FloatGraph, tflite: ExportedGraph, found: Correspondence) -> ExportedGraph:
    """The TFLite graph with the weights that `graph` has now."""
    return with_constants(
        tflite,
        {
            place.tensor: place.placed(np.asarray(graph.weights[name]))
            for name, places in found.constants.items()
            for place in places
        },
    )


def _constants(graph: FloatGraph, tflite: TfliteGraph) -> dict[str, tuple[Placement, ...]]:
    by_size: dict[int, list[int]] = {}
    for index, value in tflite.constants.items():
        by_size.setdefault(value.size, []).append(index)
    placed: dict[str, tuple[Placement, ...]] = {}
    for layer in graph.layers:
        weight = graph.weights[layer.weight]
        places = [
            place
            for index in by_size.get(weight.size, ())
            if (place := _placement(weight, index, tflite.constants[index])) is not None
            or (place := _flattened(graph, layer, index, tflite.constants[index])) is not None
        ]
        if not places:
            continue
        holders = [op for op in tflite.operators if {p.tensor for p in places} & set(op.inputs)]
        if layer.bias is not None:
            biases = _biases(graph.weights[layer.bias], holders, tflite)
            if biases is None:
                continue
            placed[layer.bias] = biases
        placed[layer.weight] = tuple(places)
    for name in graph.scales:
        value = graph.weights[name]
        found = [i for i in by_size.get(value.size, ()) if _equal(value, tflite.constants[i])]
        users = [op for op in tflite.operators if set(found) & set(op.inputs)]
        if len(found) == 1 and len(users) == 1:
            placed[name] = (Placement(found[0], (0,), tflite.constants[found[0]].shape),)
    return placed


def _placement(value: Array, index: int, constant: Array) -> Placement | None:
    """The order of axes in which `value` is `constant`, axes of length one left aside."""
    mine, theirs = np.squeeze(value), np.squeeze(constant)
    for order in permutations(range(mine.ndim)):
        turned = mine.transpose(order)
        if turned.shape == theirs.shape and _equal(turned, theirs):
            return Placement(index, order, constant.shape)
    return None


def _flattened(graph: FloatGraph, layer: WeightLayer, index: int, constant: Array) -> Placement | None:
    """The place of a weight over a flattened image, whose values TFLite takes channels last."""
    producer, weight = graph.producers.get(layer.input), graph.weights[layer.weight]
    if producer is None or producer.op_type not in ("Flatten", "Reshape") or weight.ndim != 2:
        return None
    image = graph.shapes.get(producer.input[0], ())
    outputs = weight.shape[layer.channel_axis]
    if len(image) != 4 or math.prod(image) * outputs != weight.size:
        return None
    split = (outputs, *image[1:]) if layer.channel_axis == 0 else (*image[1:], outputs)
    order = (0, 2, 3, 1) if layer.channel_axis == 0 else (3, 1, 2, 0)
    place = Placement(index, order, constant.shape, split)
    return place if _equal(place.placed(weight), constant) else None


def _biases(bias: Array, holders: Sequence[Any], tflite: TfliteGraph) -> tuple[Placement, ...] | None:
    """The last input of the operators that hold a weight; None where one of them has another bias."""
    places: dict[int, Placement] = {}
    for operator in holders:
        index = operator.inputs[-1]
        constant = tflite.constants.get(index)
        if constant is None or not _equal(bias, constant):
            return None
        places[index] = Placement(index, tuple(range(np.squeeze(bias).ndim)), constant.shape)
    # One bias tensor under several weights could not take a correction for each.
    shared = sum(index in op.inputs for op in tflite.operators for index in places) > len(holders)
    return None if shared or not places else tuple(places.values())


def _equal(one: Array, other: Array) -> bool:
    one, other = np.squeeze(one), np.squeeze(other)
    largest = float(np.abs(one).max(initial=0.0))
    return one.shape == other.shape and bool(np.abs(one - other).max(initial=0.0) <= CLOSE * largest)


def _activations(
    execution: Execution, tflite: ExportedGraph, opened: TfliteGraph, samples: Sequence[Mapping[str, Array]]
) -> tuple[dict[str, str], frozenset[str]]:
    graph = execution.graph
    wanted = graph.quantised_tensors
    mine: dict[str, list[Array]] = {}
    theirs: dict[int, list[Array]] = {}

    def visit(name: str, value: Array) -> None:
        if name in wanted:
            mine.setdefault(name, []).append(_fingerprint(value))

    for sample in samples:
        execution.run(graph.feed(sample), visit)
    for made in activations(tflite, samples, opened):
        for index, value in made.items():
            theirs.setdefault(index, []).append(_fingerprint(value))
    prints = {name: np.stack(rows) for name, rows in mine.items()}
    matched: dict[str, str] = {}
    unmatched = set()
    for index, rows in theirs.items():
        print_ = np.stack(rows)
        distances = {name: _distance(print_, other) for name, other in prints.items()}
        nearest = min(distances, key=distances.__getitem__, default=None)
        if nearest is not None and distances[nearest] <= CLOSE_ACTIVATION:
            matched[opened.names[index]] = nearest
        else:
            unmatched.add(opened.names[index])
    return matched, frozenset(unmatched)


def _fingerprint(value: Array) -> Array:
    """Size, minimum, maximum, mean and root mean square: the same in every order of the axes."""
    flat = value.reshape(-1).astype(np.float64)
    if not flat.size:
        return np.zeros(5)
    return np.array(
        [flat.size, flat.min(), flat.max(), flat.mean(), math.sqrt(float(flat @ flat) / flat.size)]
    )


def _distance(one: Array, other: Array) -> float:
    """The largest difference relative to the largest value, or infinity between sizes."""
    if one.shape != other.shape or np.any(one[:, 0] != other[:, 0]):
        return math.inf
    largest = float(np.abs(one[:, 1:3]).max()) or 1.0
    with np.errstate(invalid="ignore"):  # infinity less infinity is no number, and no match
        return float(np.abs(one[:, 1:] - other[:, 1:]).max()) / largest
