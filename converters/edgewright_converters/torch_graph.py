"""`TorchGraph`: an optimised float graph as a torch module, for any number of samples at once.

The graph is made for one sample, with its shapes in constants; `torch.vmap` runs it for a batch. It is checked
against ONNX Runtime when it is made, so that what is learnt in it is learnt for the graph that is deployed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgewright.errors import ConversionError
from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.torch_operators import OPERATORS, run_node

Array = NDArray[Any]
CLOSE = 1e-3
"""Of the largest value of an output: sums in another order, over all layers."""


class NotTrainableError(ConversionError):
    """A graph cannot be trained here; the message says by which operator."""


class TorchGraph(nn.Module):  # type: ignore[misc]
    """Takes its inputs in order, each with a first axis for the samples, and gives its outputs by name.

    Weights are buffers; `Student` makes parameters of those that are trained.
    """

    input_names: tuple[str, ...]

    def __init__(self, graph: FloatGraph) -> None:
        super().__init__()
        self.graph = graph
        self.input_names = tuple(spec.name for spec in graph.inputs)
        self._places: dict[str, str] = {}
        self._constants: dict[str, Array] = {}
        for number, (name, value) in enumerate(graph.weights.items()):
            if np.issubdtype(value.dtype, np.floating):
                self._places[name] = f"constant_{number}"
                self.register_buffer(self._places[name], torch.from_numpy(np.array(value)))
            else:
                self._constants[name] = value

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        weights = self.weights()

        def one(*sample: Tensor) -> tuple[Tensor, ...]:
            return self._run(sample, weights)

        if all(x.shape[0] == 1 for x in inputs):
            made = one(*inputs)
        else:
            made = torch.vmap(one)(*(x.unsqueeze(1) for x in inputs))
            made = tuple(
                value.flatten(0, 1) if spec.shape[:1] == (1,) else value
                for value, spec in zip(made, self.graph.outputs, strict=True)
            )
        return {spec.name: value for spec, value in zip(self.graph.outputs, made, strict=True)}

    def weights(self) -> dict[str, Any]:
        """Every constant of the graph by name, as the layers take it."""
        found: dict[str, Any] = {name: self.get_buffer(place) for name, place in self._places.items()}
        return found | self._constants

    def stored(self, name: str, value: Tensor) -> Tensor:
        """An activation as it is kept for whoever takes it."""
        return value

    def _run(self, sample: tuple[Tensor, ...], weights: Mapping[str, Any]) -> tuple[Tensor, ...]:
        values = dict(weights)
        for spec, value in zip(self.graph.inputs, sample, strict=True):
            values[spec.runtime_name] = self.stored(spec.runtime_name, value)
        for node in self.graph.nodes:
            for name, value in run_node(node, values).items():
                values[name] = self.stored(name, value)
        return tuple(values[spec.runtime_name] for spec in self.graph.outputs)


def check_trainable(graph: FloatGraph, sample: Mapping[str, Array]) -> None:
    """Hold the graph in torch against ONNX Runtime, on a sample by name in the graph.

    Raises `NotTrainableError` where torch lacks an operator or computes something else.
    """
    for node in graph.nodes:
        if node.op_type not in OPERATORS:
            raise NotTrainableError(f"operator {node.op_type} of node '{node.name}' has no gradient here")
    expected = Execution(graph).run(sample, lambda name, value: None)
    twice = [torch.from_numpy(np.concatenate([sample[s.runtime_name]] * 2)) for s in graph.inputs]
    try:
        with torch.no_grad():
            made = TorchGraph(graph)(*twice)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise NotTrainableError(
            f"torch does not run the graph ({str(error).splitlines()[0][:160]})"
        ) from None
    for spec in graph.outputs:
        reference = expected[spec.runtime_name]
        both = made[spec.name].numpy()
        got = both[:1] if spec.shape[:1] == (1,) else both[0]
        close = CLOSE * float(np.abs(reference).max(initial=1e-6))
        if got.shape != reference.shape or not np.allclose(got, reference, rtol=0, atol=close):
            raise NotTrainableError(f"torch computes another output '{spec.name}' than ONNX Runtime")
