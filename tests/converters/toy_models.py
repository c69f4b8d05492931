"""Models that the tests convert by `toy_models:FUNCTION`."""

from __future__ import annotations

import torch
from torch import nn


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(image)))
        return self.head(torch.relu(self.depthwise(x)).mean((2, 3)))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(3, 8)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.relu(self.a(left) + self.b(right))
        return joined, joined * 0.5


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(self.conv(image))


class Branches(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 2 if image.sum() > 0 else image


def small() -> nn.Module:
    torch.manual_seed(0)
    return Small()


def two_inputs() -> nn.Module:
    torch.manual_seed(0)
    return TwoInputs()


def odd() -> nn.Module:
    return Odd()


def branches() -> nn.Module:
    return Branches()


def no_model() -> int:
    return 3
