"""Training on Fashion-MNIST until the validation accuracy stops improving; the same seed, the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.converters.fashion_mnist import FashionMnist, LabelledImages

MAX_EPOCHS = 40
PATIENCE = 3
"""Epochs without a better validation accuracy after which training ends; the learning rate falls after one."""
BATCH = 128
THREADS = 2
"""Always the same, for the order of sums and so the weights depend on it."""
OnEpoch = Callable[[int, float], None]
"""Told after each epoch: its number and the validation accuracy."""


def train(
    network: nn.Module,
    data: FashionMnist,
    on_epoch: OnEpoch,
    *,
    learning_rate: float,
    shifts: bool,
    max_epochs: int = MAX_EPOCHS,
) -> dict[str, Any]:
    """Train and return the weights of the epoch with the best validation accuracy."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    # Channels last trains these convolutions in two thirds of the time on a CPU.
    network.to(memory_format=torch.channels_last)
    x, y = torch.from_numpy(data.train.x), torch.from_numpy(data.train.y)
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-2)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, "max", factor=0.25, patience=1)
    best, best_epoch = 0.0, 0
    weights: dict[str, Any] = network.state_dict()
    for epoch in range(max_epochs):
        network.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = nn.functional.cross_entropy(network(_augmented(x[rows], shifts)), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        reached = accuracy(network, data.validation)
        on_epoch(epoch, reached)
        plateau.step(reached)
        if reached > best:
            best, best_epoch, weights = reached, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= PATIENCE:
            break
    return weights


def accuracy(network: nn.Module, images: LabelledImages) -> float:
    """The share of images classified correctly."""
    network.eval()
    with torch.inference_mode():
        hits = [
            (
                network(torch.from_numpy(images.x[i : i + 500])).argmax(1).numpy() == images.y[i : i + 500]
            ).sum()
            for i in range(0, len(images.x), 500)
        ]
    return float(sum(hits)) / len(images.x)


def _augmented(images: torch.Tensor, shifts: bool) -> torch.Tensor:
    """Shifted by up to two pixels where asked, and mirrored half of the time."""
    moved = torch.roll(images, torch.randint(-2, 3, (2,)).tolist(), dims=(2, 3)) if shifts else images
    mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
    return torch.where(mirrored, moved.flip(3), moved)
