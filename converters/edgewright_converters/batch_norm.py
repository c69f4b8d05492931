"""`ChannelNormals`: what batch norm says of the tensors of a float graph, read before it is folded away.

In evaluation a batch norm gives each channel, over the training data, the mean β and the deviation γ·σ/√(σ² + ε),
whatever the data was. The graph that is quantised has no batch norm left; so the source program is run on one
sample, and each norm's output found again in the graph by its values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from edgewright_converters.execution import Execution
from edgewright_converters.source import tensors

Array = NDArray[Any]
CLOSE = 1e-3
"""Relative to a tensor's largest value: folding changes the order of operations."""
_ATEN = torch.ops.aten
_EPSILON = {
    _ATEN.batch_norm.default: 7,
    _ATEN._native_batch_norm_legit_no_training.default: 6,
    _ATEN.cudnn_batch_norm.default: 7,
}
"""The operators of batch norm in evaluation, and which argument is ε."""


@dataclass(frozen=True)
class Normal:
    """Mean and standard deviation of each channel."""

    mean: Array
    deviation: Array


ChannelNormals: TypeAlias = Mapping[str, Normal]
"""By the name of the tensor in the float graph."""


@dataclass(frozen=True)
class SeenNorm:
    """One batch norm on one sample: what went in and came out, and what training saw of both."""

    input: Array
    output: Array
    trained: Normal
    normal: Normal


def seen_norms(
    program: torch.export.ExportedProgram, sample: Mapping[str, Array], names: tuple[str, ...]
) -> list[SeenNorm]:
    """Run the program on a sample and note every batch norm in it."""
    watching = _Watching(program.module())
    with torch.inference_mode():
        watching.run(*tensors(sample, names))
    return watching.seen


def channel_normals(
    seen: Sequence[SeenNorm], execution: Execution, sample: Mapping[str, Array]
) -> dict[str, Normal]:
    """The norms' outputs in the graph, which is run on the same sample; a norm that is not found is left out."""
    by_shape: dict[tuple[int, ...], list[SeenNorm]] = {}
    for norm in seen:
        by_shape.setdefault(norm.output.shape, []).append(norm)
    found: dict[str, Normal] = {}

    def visit(name: str, value: Array) -> None:
        for norm in by_shape.get(value.shape, ()):
            if np.abs(value - norm.output).max() <= CLOSE * np.abs(norm.output).max():
                found[name] = norm.normal

    execution.run(execution.graph.feed(sample), visit)
    return found


class _Watching(torch.fx.Interpreter):  # type: ignore[misc]
    """Runs a program and keeps what its batch norms take and give."""

    def __init__(self, module: torch.nn.Module) -> None:
        assert isinstance(module, torch.fx.GraphModule)
        super().__init__(module)
        self.seen: list[SeenNorm] = []

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().call_function(target, args, kwargs)
        if target in _EPSILON and args[3] is not None:
            output = result[0] if isinstance(result, tuple) else result
            value, gamma, beta, mean, variance = args[:5]
            spread = (variance / (variance + args[_EPSILON[target]])).sqrt()
            normal = Normal(
                (beta if beta is not None else torch.zeros_like(mean)).detach().numpy().copy(),
                (spread if gamma is None else spread * gamma.abs()).detach().numpy().copy(),
            )
            trained = Normal(mean.numpy().copy(), variance.sqrt().numpy().copy())
            self.seen.append(SeenNorm(value.numpy().copy(), output.numpy().copy(), trained, normal))
        return result
