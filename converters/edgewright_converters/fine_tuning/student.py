"""`Student`: a graph in torch that computes what its INT8 artifact will, and can be trained.

Its weights and activations lie on exactly the grids that the converters write, with batch norm folded as they fold
it (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 3). Trained are the weights and biases of layers and, as in Esser et al. 2020, "Learned Step
Size Quantization", the step of the grid of each activation that all targets store. What one of them alone stores
is rounded and never clipped: clipping would become part of the function, and the other target would not have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgewright_converters.quantise.activation_range import ActivationRange
from edgewright_converters.quantise.decision import Decision
from edgewright_converters.quantise.fake_quantisation import on_grid, on_steps, weight_on_grid
from edgewright_converters.quantise.grid import STEPS, ActivationGrid
from edgewright_converters.torch_graph import TorchGraph

Array = NDArray[Any]
MOVES = ("Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
         "Unsqueeze")  # fmt: skip
"""What gives values as they come in: both targets keep the grid of the input for the output."""
BOUNDED = ("HardSigmoid", "Sigmoid", "Softmax", "Tanh")
"""Their results have a range of their own, which TFLite holds to. A gate that learns to clip earlier is another
function, which a hard-swish, one operator in TFLite, does not compute."""


class Student(TorchGraph):
    """Parameters are held in units of their channel's size, so that one learning rate suits all of them."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.graph)
        self._decision = decision
        graph, bounds = decision.graph, decision.bounds()
        self._axes = {
            layer.weight: layer.channel_axis for layer in graph.layers if layer.name not in decision.in_float
        }
        self._numbers: dict[str, int] = {}
        self.values = nn.ParameterList()
        for layer in graph.layers:
            if not graph.changeable(layer.weight, layer.bias):
                continue
            weight = graph.weights[layer.weight]
            unit = _unit(weight, layer.channel_axis)
            self._train(layer.weight, weight, unit)
            if layer.bias is not None and unit.size == graph.weights[layer.bias].size:
                low, high = bounds.get(layer.input, (-1.0, 1.0))
                self._train(layer.bias, graph.weights[layer.bias], unit.reshape(-1) * _power(max(-low, high)))
        grids = {
            name: ActivationGrid.over(*bounds[name])
            for name in graph.float_tensors
            if name in graph.quantised_tensors and name in bounds and not self._moved(name)
        }
        held = self._held()
        self.grids = {name: grid for name, grid in grids.items() if name not in held}
        self.held = {name: grid.scale for name, grid in grids.items() if name in held}
        self._grid_numbers = {name: number for number, name in enumerate(self.grids)}
        scales = torch.tensor([grid.scale for grid in self.grids.values()], dtype=torch.float32)
        self.register_buffer("scales", scales)
        self.log_steps = nn.Parameter(torch.zeros(len(self.grids)))

    def weights(self) -> dict[str, Any]:
        """Trained and other weights, those of layers on their grids."""
        found = super().weights()
        for name, number in self._numbers.items():
            found[name] = self._value(number)
        return {
            name: weight_on_grid(value, self._axes[name]) if name in self._axes else value
            for name, value in found.items()
        }

    def stored(self, name: str, value: Tensor) -> Tensor:
        if name in self.held:
            return on_steps(value, self.held[name])
        if name not in self.grids:
            return value
        number = self._grid_numbers[name]
        return on_grid(value, self._steps()[number], self.grids[name].zero_point)

    def decision(self, samples: Iterable[Sequence[Tensor]] = ()) -> Decision:
        """What has been learnt, as the converters write it.

        What is held is to cover all that it takes on for `samples`, the inputs in order of one sample each;
        without any it keeps its range.
        """
        with torch.no_grad():
            learnt = {
                name: self._value(number).cpu().numpy().copy() for name, number in self._numbers.items()
            }
            scales = self._steps().cpu().numpy().astype(np.float64)
        ranges = dict(self._decision.ranges)
        for name, (low, high) in self._reach(samples).items():
            ranges[name] = ActivationRange.over(low, high)
        for name, scale in zip(self.grids, scales, strict=True):
            zero_point = self.grids[name].zero_point
            ranges[name] = replace(
                ranges[name], low=-zero_point * float(scale), high=(STEPS - zero_point) * float(scale)
            )
        for node in self.graph.nodes:
            if node.op_type in MOVES and node.input[0] in ranges:
                ranges.update({name: ranges[node.input[0]] for name in node.output if name in ranges})
        return replace(self._decision, graph=self.graph.with_weights(learnt), ranges=ranges, trained=True)

    def tuned(self) -> TorchGraph:
        """The float model with what has been learnt, which `convert` takes as a source."""
        made: TorchGraph = TorchGraph(self.decision().graph).eval()
        return made

    def _held(self) -> set[str]:
        """Activations whose grids are not learnt."""
        found = set(self.graph.unshared)
        for node in reversed(self.graph.nodes):
            # Of what only moves, one name or another is that of the other target's tensor.
            if node.op_type in MOVES and not found.issuperset(node.output):
                found.discard(node.input[0])
        return found | {name for node in self.graph.nodes if node.op_type in BOUNDED for name in node.output}

    def _reach(self, samples: Iterable[Sequence[Tensor]]) -> dict[str, tuple[float, float]]:
        """Minimum and maximum of what is held."""
        found: dict[str, tuple[float, float]] = {}

        def look(name: str, value: Tensor) -> Tensor:
            if name in self.held and value.numel():
                low, high = found.get(name, (np.inf, -np.inf))
                found[name] = min(low, float(value.min())), max(high, float(value.max()))
            return self.stored(name, value)

        with torch.no_grad():
            weights = self.weights()
            for sample in samples:
                self._run(sample, weights, look)
        return found

    def _moved(self, name: str) -> bool:
        node = self.graph.producers.get(name)
        return node is not None and node.op_type in MOVES and node.input[0] not in self.graph.weights

    def _steps(self) -> Tensor:
        return self.get_buffer("scales") * torch.exp(self.log_steps)

    def _train(self, name: str, value: Array, unit: Array) -> None:
        number = self._numbers[name] = len(self.values)
        self.values.append(nn.Parameter(torch.from_numpy((value / unit).astype(np.float32))))
        self.register_buffer(f"unit_{number}", torch.from_numpy(unit.astype(np.float32)))

    def _value(self, number: int) -> Tensor:
        made: Tensor = self.values[number] * self.get_buffer(f"unit_{number}")
        return made


def _unit(weight: Array, channel_axis: int) -> Array:
    """The largest weight of each channel as a power of two: dividing by it loses no bit."""
    axes = tuple(axis for axis in range(weight.ndim) if axis != channel_axis)
    largest = np.abs(weight).max(axis=axes, keepdims=True)
    found: Array = np.exp2(np.ceil(np.log2(np.where(largest > 0, largest, 1.0))))
    return found


def _power(size: float) -> float:
    return float(np.exp2(np.ceil(np.log2(size)))) if size > 0 else 1.0
