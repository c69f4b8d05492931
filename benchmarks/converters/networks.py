"""The networks that are trained here on Fashion-MNIST: one of each family that quantisers find different.

A plain residual CNN is easy; depthwise convolutions, hard-swish and squeeze-excite lose most to per-tensor
ranges; a transformer loses to LayerNorm, GELU and attention.
"""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 10


class Residual(nn.Module):
    """Two 3×3 convolutions with a way around them (He et al. 2016, figure 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, channels, 3), nn.ReLU(), *_convolution(channels, channels, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class SqueezeExcite(nn.Module):
    """Channels weighed by what the whole image holds (Howard et al. 2019, section 5.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x * self.weigh(x)
        return result


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-excite, project (Howard et al. 2019, figure 4)."""

    def __init__(self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.around = inputs == outputs and stride == 1
        self.body = nn.Sequential(
            *_convolution(inputs, expanded, 1),
            nn.Hardswish(),
            *_convolution(expanded, expanded, kernel, stride, groups=expanded),
            nn.Hardswish(),
            SqueezeExcite(expanded),
            *_convolution(expanded, outputs, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.body(x) if self.around else self.body(x)
        return result


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2), spelt out so that every exporter sees it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        split = self.query_key_value(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, width)
        result: torch.Tensor = self.out(mixed)
        return result


class Block(nn.Module):
    """A transformer block with the normalisation first (Dosovitskiy et al. 2021, equations 2 and 3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(x)
        result: torch.Tensor = x + self.think(x)
        return result


class VisionTransformer(nn.Module):
    """49 tokens of a 28×28 image, whose mean is classified.

    The patches overlap, made by two strided convolutions: with cut 4×4 patches it does not reach 88 % in the time
    (Xiao et al. 2021, "Early convolutions help transformers see better").
    """

    def __init__(self, width: int = 48, heads: int = 4, blocks: int = 4) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            *_convolution(1, width // 2, 3, 2), nn.ReLU(), *_convolution(width // 2, width, 3, 2)
        )
        self.position = nn.Parameter(torch.randn(1, 49, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.position
        result: torch.Tensor = self.head(self.blocks(tokens).mean(1))
        return result


def residual_cnn() -> nn.Module:
    """A residual CNN of some 75,000 parameters."""
    return nn.Sequential(
        *_convolution(1, 32, 3, 2),
        nn.ReLU(),
        Residual(32),
        *_convolution(32, 48, 3, 2),
        nn.ReLU(),
        Residual(48),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, CLASSES),
    )


def mobile_cnn() -> nn.Module:
    """A MobileNetV3 in small: depthwise convolutions, hard-swish, squeeze-excite, some 45,000 parameters."""
    return nn.Sequential(
        *_convolution(1, 16, 3, 2),
        nn.Hardswish(),
        InvertedResidual(16, 48, 16, 3, 1),
        InvertedResidual(16, 64, 32, 3, 2),
        InvertedResidual(32, 96, 32, 5, 1),
        InvertedResidual(32, 96, 32, 5, 1),
        *_convolution(32, 128, 1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, CLASSES),
    )


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
