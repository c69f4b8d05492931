"""The models that are measured: what each is, how it is built, and how much data calibrates and judges it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class BenchmarkModel:
    """`build` imports torch when called: whoever only lists the models does not need it."""

    name: str
    title: str
    data: Literal["fashion-mnist", "photos"]
    build: Callable[[], nn.Module]
    calibration_samples: int
    evaluation_samples: int
    transformer: bool = False
    learning_rate: float = 2e-3
    shifts: bool = True
    """Whether it is trained on shifted images too; a transformer this small learns them too slowly."""


def _residual() -> nn.Module:
    from benchmarks.converters.networks import residual_cnn

    return residual_cnn()


def _mobile() -> nn.Module:
    from benchmarks.converters.networks import mobile_cnn

    return mobile_cnn()


def _transformer() -> nn.Module:
    from benchmarks.converters.networks import VisionTransformer

    return VisionTransformer()


def _efficientnet() -> nn.Module:
    from edgewright_demo.models import efficientnet_lite0

    return efficientnet_lite0()


MODELS = {
    model.name: model
    for model in (
        BenchmarkModel(
            "residual-cnn", "residual CNN, Fashion-MNIST", "fashion-mnist", _residual, 512, 10_000
        ),
        BenchmarkModel(
            "mobile-cnn",
            "depthwise, hard-swish, squeeze-excite CNN, Fashion-MNIST",
            "fashion-mnist",
            _mobile,
            512,
            10_000,
        ),
        BenchmarkModel(
            "vision-transformer",
            "vision transformer, Fashion-MNIST",
            "fashion-mnist",
            _transformer,
            512,
            10_000,
            transformer=True,
            learning_rate=1e-3,
            shifts=False,
        ),
        BenchmarkModel(
            "efficientnet-lite0", "EfficientNet-Lite0, ImageNet weights, photo crops", "photos",
            _efficientnet, 100, 480,
        ),
    )
}  # fmt: skip
QUICK_CALIBRATION, QUICK_EVALUATION, QUICK_EPOCHS = 32, 500, 1
