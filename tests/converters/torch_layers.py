"""Small torch models of one or two layers each, for what both formats have to agree on."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edgewright_converters.calibration import SampleSet, load_samples
from edgewright_converters.graphs import FloatGraphs, float_graphs
from edgewright_converters.source import SourceModel, load_source
from edgewright_converters.source_check import check_takes


class Tied(nn.Module):
    """One weight under two biases, and a third layer that is equal to the first by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight
        self.c.load_state_dict(self.a.state_dict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class Scaled(nn.Module):
    """A trained LayerNorm, whose factors litert-torch folds into the layer after it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)
        nn.init.uniform_(self.norm.weight, 0.5, 2.0)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(x))


def separable() -> nn.Module:
    """Depthwise and pointwise layers with batch norm and ReLU6, as mobile networks have them."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    return model


def pair(one: nn.Module, other: nn.Module) -> nn.Module:
    return nn.Sequential(one, nn.ReLU(), other)


def zero_bias(layer: nn.Module) -> nn.Module:
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Conv1d": (lambda: pair(nn.Conv1d(3, 8, 5), nn.Conv1d(8, 6, 3, stride=2)), (3, 32)),
    "Conv2d": (lambda: pair(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)), (4, 8, 8)),
    "separable": (separable, (3, 16, 16)),
    "depthwise with a multiplier": (
        lambda: pair(nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 6, 1)),
        (4, 8, 8),
    ),
    "no biases": (
        lambda: pair(nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=8, bias=False)),
        (8, 8, 8),
    ),
    "zero biases": (
        lambda: pair(zero_bias(nn.Conv2d(8, 8, 3)), zero_bias(nn.Conv2d(8, 8, 3))),
        (8, 8, 8),
    ),
    "Linear": (lambda: pair(nn.Linear(8, 16), nn.Linear(16, 4)), (8,)),
    "Linear without bias": (lambda: pair(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)), (8,)),
    "Linear on three axes": (lambda: pair(nn.Linear(8, 16), nn.Linear(16, 4)), (5, 8)),
    "Linear on three axes without bias": (
        lambda: pair(nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False)),
        (5, 8),
    ),
    "transposed": (lambda: pair(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.Conv2d(4, 2, 1)), (3, 6, 6)),
    "tied": (Tied, (8,)),
    "LayerNorm": (Scaled, (5, 8)),
}


@dataclass(frozen=True)
class Prepared:
    """A model with its samples and its float graphs in both formats."""

    source: SourceModel
    samples: SampleSet
    graphs: FloatGraphs


@functools.cache
def prepared(name: str) -> Prepared:
    build, shape = MODELS[name]
    torch.manual_seed(0)
    return prepare(build(), shape)


def prepare(module: nn.Module, shape: tuple[int, ...], count: int = 16) -> Prepared:
    source = load_source(module.eval())
    data = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    samples = load_samples({"x": data}, source.input_names)
    examples = [sample.inputs for sample in samples.head(2)]
    graphs = float_graphs(source, examples, check_takes(source, examples[0]), ["onnx", "tflite"])
    return Prepared(source, samples, graphs)
