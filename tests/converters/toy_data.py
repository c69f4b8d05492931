"""Data that the tests name by `toy_data:FUNCTION`: well behaved first, then each with its own fault."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def images(seed: int = 0, count: int = 10) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal((count, 2, 12, 12)).astype(np.float32)


def dicts() -> Iterator[dict[str, Any]]:
    for start in range(0, 10, 4):
        part = images()[start : start + 4]
        yield {"image": part, "y": np.arange(len(part))}


def pairs() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(0, 10, 4):
        part = torch.from_numpy(images()[start : start + 4]).requires_grad_()
        yield part, torch.arange(len(part))


def arrays() -> list[NDArray[Any]]:
    return [images()[:4], images()[4:]]


def loader() -> torch.utils.data.DataLoader[Any]:
    data = torch.utils.data.TensorDataset(torch.from_numpy(images()), torch.arange(10) % 4)
    return torch.utils.data.DataLoader(data, batch_size=4)


def shuffled() -> torch.utils.data.DataLoader[Any]:
    data = torch.utils.data.TensorDataset(torch.from_numpy(images()), torch.arange(10) % 4)
    return torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)


class _Shrinks:
    """A loader that has fewer batches each time."""

    left = 3

    def __iter__(self) -> Iterator[NDArray[Any]]:
        self.left -= 1
        yield from [images()[:2]] * self.left


def shrinks() -> _Shrinks:
    return _Shrinks()


def nothing() -> Iterator[Any]:
    yield from ()


def none() -> None:
    return None


def raises() -> Iterator[Any]:
    yield images()[:4]
    raise KeyError("a lost file\nand a second line")


def raises_at_once() -> Iterator[Any]:
    raise OSError("the disk is away")


def strings() -> Iterator[Any]:
    yield "photo.png"


def shapes() -> Iterator[Any]:
    yield images()[:4]
    yield images()[4:, :, :8]


def dtypes() -> Iterator[Any]:
    yield images()[:4]
    yield images()[4:].astype(np.float64)


def labels_stop() -> Iterator[Any]:
    yield images()[:4], np.arange(4)
    yield images()[4:]


def few_labels() -> Iterator[Any]:
    yield images()[:4], np.arange(3)


def nan() -> Iterator[Any]:
    yield images()[:4]
    part = images()[4:]
    part[2, 0, 3, 3] = np.nan
    yield part


def unequal() -> Iterator[Any]:
    yield {"left": np.ones((4, 6), np.float32), "right": np.ones((3, 3), np.float32)}


def leaves() -> Iterator[Any]:
    sys.exit(0)


def leaves_at_a_batch() -> Iterator[Any]:
    yield images()[:4]
    sys.exit("gone")


def no_memory() -> Iterator[Any]:
    yield torch.empty(4, 2, 12, 12, device="meta")
