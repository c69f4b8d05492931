"""Dead channels put to use: they carry copies of the channels whose rounding does most damage.

Training with weight decay leaves convolutions with channels that are nought for every input. Where one lies beside
a channel whose rounding error a later layer amplifies, it can carry that channel a second time, on a grid shifted
by a part of a step, and the layer after takes the mean: n copies leave an nth of the noise, and cost nothing to
run. To give a channel several places, on shifted grids, is the idea of Zhao et al. 2019, "Improving Neural Network
Quantization without Retraining using Outlier Channel Splitting"; here no channel is added. In EfficientNet-Lite0
one channel of the stem, which a depthwise kernel differentiates, made a sixth of all activation noise on its own,
beside four dead ones: with copies the model's SQNR is 0.8 dB better before anything else is repaired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.float_graph import ACTIVATIONS, FloatGraph, WeightLayer, attribute
from edgewright_converters.observation import TensorStatistics
from edgewright_converters.quantise.grid import ActivationGrid

Array = NDArray[Any]
DEAD = 0.05
"""In steps of its grid: a channel that varies by less than this share of a step holds nothing."""
WORTH = 0.9
"""Copies must leave this share of a chain's noise at most."""


@dataclass(frozen=True)
class _Chain:
    """Layers that each channel passes by itself, between the layer that makes it and the one that mixes it."""

    maker: WeightLayer
    depthwise: WeightLayer
    mixer: WeightLayer
    made: str
    """The stored output of `maker`, after its activation."""
    passed: str
    """The same of `depthwise`."""


def spread_over_dead(
    graph: FloatGraph,
    statistics: Mapping[str, TensorStatistics],
    ranges: Mapping[str, tuple[float, float]],
) -> FloatGraph:
    """The same function with copies in its dead channels; the graph itself where that is worth nothing."""
    weights = dict(graph.weights)
    changed = False
    for chain in _chains(graph):
        if chain.made in ranges and chain.passed in ranges:
            steps = tuple(ActivationGrid.over(*ranges[name]).scale for name in (chain.made, chain.passed))
            changed |= _spread(chain, weights, statistics, steps)
    return graph.with_weights(weights) if changed else graph


def _chains(graph: FloatGraph) -> Iterator[_Chain]:
    layers = {layer.output: layer for layer in graph.layers}

    def stored(layer: WeightLayer) -> tuple[str, list[WeightLayer]]:
        """Where a layer's result is stored, and the layers that take it; none where anything else does."""
        name = layer.output
        users = graph.consumers.get(name, [])
        if len(users) == 1 and users[0].op_type in ACTIVATIONS:
            name = str(users[0].output[0])
            users = graph.consumers.get(name, [])
        takers = [layers[user.output[0]] for user in users if user.output[0] in layers]
        return name, takers if len(takers) == len(users) and name not in graph.output_names else []

    def fit(layer: WeightLayer) -> bool:
        return (
            layer.node.op_type == "Conv"
            and layer.bias is not None
            and graph.changeable(layer.weight, layer.bias)
        )

    for maker in graph.layers:
        made, takers = stored(maker)
        if len(takers) != 1 or maker.groups != 1 or not fit(maker):
            continue
        (depthwise,) = takers
        channels = len(graph.weights[maker.weight])
        if not (fit(depthwise) and depthwise.groups == channels == len(graph.weights[depthwise.weight])):
            continue
        passed, takers = stored(depthwise)
        # Without padding, what a dead channel gives is the same everywhere and belongs into the bias.
        if len(takers) == 1 and takers[0].groups == 1 and fit(takers[0]) and not _padded(takers[0]):
            yield _Chain(maker, depthwise, takers[0], made, passed)


def _padded(layer: WeightLayer) -> bool:
    return any(attribute(layer.node, "pads", ())) or attribute(layer.node, "auto_pad", b"NOTSET") != b"NOTSET"


def _spread(
    chain: _Chain,
    weights: dict[str, Array],
    statistics: Mapping[str, TensorStatistics],
    steps: tuple[float, ...],
) -> bool:
    """Change `weights`; whether that was worth it."""
    seen = statistics.get(chain.passed)
    kernel = weights[chain.depthwise.weight]
    taps = kernel.reshape(len(kernel), -1).astype(np.float64)
    reach = np.abs(taps).sum(1) * np.abs(np.asarray(statistics[chain.made].high, np.float64)).max()
    if seen is None or len(seen.low) != len(kernel):
        return False
    dead = np.flatnonzero((reach < DEAD * steps[1]) & (seen.high - seen.low < DEAD * steps[1]))
    mixed = weights[chain.mixer.weight].astype(np.float64)
    energy = np.square(mixed).sum(axis=tuple(axis for axis in range(mixed.ndim) if axis != 1))
    noise = energy * (np.square(taps).sum(1) * steps[0] ** 2 + steps[1] ** 2)
    noise[dead] = 0.0
    if not dead.size or not noise.any():
        return False
    copies = np.ones(len(kernel), np.int64)
    places: dict[int, list[int]] = {}
    for free in dead:
        source = int(np.argmax(noise / copies))
        copies[source] += 1
        places.setdefault(source, [source]).append(int(free))
    if (noise / copies).sum() > WORTH * noise.sum():
        return False
    _empty(chain, weights, dead, seen)
    for found in places.values():
        _copy(chain, weights, found, steps[0])
    return True


def _empty(chain: _Chain, weights: dict[str, Array], dead: Array, seen: TensorStatistics) -> None:
    """Hand what dead channels give over to the bias of the layer that takes them."""
    mixed, bias = weights[chain.mixer.weight].copy(), chain.mixer.bias
    assert bias is not None
    constant = (np.asarray(seen.low, np.float64) + seen.high)[dead] / 2
    given = mixed[:, dead].reshape(len(mixed), len(dead), -1).sum(2) @ constant
    weights[bias] = (weights[bias] + given).astype(np.float32)
    mixed[:, dead] = 0.0
    weights[chain.mixer.weight] = mixed


def _copy(chain: _Chain, weights: dict[str, Array], places: list[int], step: float) -> None:
    """Put the first of `places` into all of them, each on a grid shifted by a part of a step."""
    source, count = places[0], len(places)
    shifts = (np.arange(count) - (count - 1) / 2) / count * step
    maker, depthwise, mixer = chain.maker, chain.depthwise, chain.mixer
    assert maker.bias is not None and depthwise.bias is not None
    for name in (maker.weight, maker.bias, depthwise.weight, depthwise.bias):
        weights[name] = weights[name].copy()
        weights[name][places] = weights[name][source]
    weights[maker.bias][places] += shifts.astype(np.float32)
    weights[depthwise.bias][places] -= (shifts * weights[depthwise.weight][source].sum()).astype(np.float32)
    weights[mixer.weight] = weights[mixer.weight].copy()
    weights[mixer.weight][:, places] = weights[mixer.weight][:, [source]] / count
