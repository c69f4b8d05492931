"""Trains a `Student` on samples, bounded in steps and seconds, the same for the same seed.

It owns the order of the samples, the optimiser and its schedule. Whether what comes out is better is judged
elsewhere (`rung`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgewright.errors import ConversionError
from edgewright_converters.calibration import Sample, SampleSet
from edgewright_converters.fine_tuning.distillation import distillation_loss, output_error
from edgewright_converters.fine_tuning.student import Student
from edgewright_converters.torch_graph import TorchGraph

WINDOW_BYTES = 256_000_000
"""Samples are shuffled within so much of them: all of a small set."""
RATE_AT_LEAST = 1e-2
"""Of the learning rate, at the end."""
WARM_UP = 0.1
"""Share of the training in which the rate rises: the optimiser does not know the gradients' sizes yet."""
NORM = 1.0
"""Longest gradient, of all parameters together: a single odd batch moves nothing far."""
OUTPUT_SHARE = 0.1
"""Of a classifier's loss that is its scores' own error: softmax does not see what is added to all of them."""
OnProgress = Callable[[int, int, float, float], None]
"""Told now and then: steps done and to do, the loss of late, and about how many seconds are left."""


@dataclass(frozen=True)
class TrainingLimits:
    """How long, how fast and in what order to learn."""

    seconds: float = 600.0
    steps: int = 2000
    batch: int = 64
    learning_rate: float = 1e-3
    """Of a parameter in shares of its channel's size."""
    seed: int = 0


@dataclass(frozen=True)
class Training:
    """What was done: samples seen with repetition, and the mean loss of the first and of the last tenth."""

    steps: int
    samples: int
    seconds: float
    first_loss: float
    last_loss: float


def train(
    student: Student,
    teacher: TorchGraph,
    samples: SampleSet,
    chosen: Collection[int],
    scores: str | None,
    limits: TrainingLimits,
    on_progress: OnProgress | None = None,
) -> Training:
    """Teach `student`, in place, on the samples of the indices `chosen`. `scores` names a classifier's output.

    Steps bound it the same on any machine; where `seconds` end it first, what comes out depends on the machine's
    speed. Raises `ConversionError` where the loss is no number any more.
    """
    started = time.perf_counter()
    optimiser = torch.optim.Adam(student.parameters(), lr=limits.learning_rate)
    losses: list[float] = []
    told, seen = 0.0, 0
    batches = _batches(samples, chosen, student.input_names, limits)
    for step in range(limits.steps):
        elapsed = time.perf_counter() - started
        progress = max(step / limits.steps, elapsed / limits.seconds)
        if progress >= 1:
            break
        rate = RATE_AT_LEAST + (1 - RATE_AT_LEAST) * (1 + np.cos(np.pi * progress)) / 2
        rate *= min(1.0, (progress + 1 / limits.steps) / WARM_UP)
        optimiser.param_groups[0]["lr"] = limits.learning_rate * float(rate)
        inputs, labels = next(batches)
        with torch.no_grad():
            expected = teacher(*inputs)
        made = student(*inputs)
        loss = OUTPUT_SHARE * output_error(made, expected)
        if scores is None:
            loss = output_error(made, expected)
        else:
            loss = loss + distillation_loss(made[scores], expected[scores], labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), NORM)
        optimiser.step()
        losses.append(float(loss.detach()))
        seen += len(inputs[0])
        if not np.isfinite(losses[-1]):
            raise ConversionError(f"the loss is {losses[-1]} at step {step}", where=samples.where)
        if on_progress is not None and elapsed - told >= 1:
            told, left = elapsed, elapsed / progress - elapsed
            on_progress(step, limits.steps, float(np.mean(losses[-20:])), left)
    tenth = max(1, len(losses) // 10)
    first, last = (float(np.mean(part)) if part else 0.0 for part in (losses[:tenth], losses[-tenth:]))
    return Training(len(losses), seen, time.perf_counter() - started, first, last)


def _batches(
    samples: SampleSet, chosen: Collection[int], names: Sequence[str], limits: TrainingLimits
) -> Iterator[tuple[tuple[Tensor, ...], Tensor | None]]:
    """Batches without end, in a new order in each pass; the last of a pass is dropped where it is not full."""
    rng = np.random.default_rng(limits.seed)
    wanted = frozenset(chosen)
    size = min(limits.batch, len(wanted))
    while True:
        for window in _windows((s for i, s in enumerate(samples) if i in wanted), size):
            order = rng.permutation(len(window))
            for start in range(0, len(order) - size + 1, size):
                yield _stacked([window[i] for i in order[start : start + size]], names)


def _windows(samples: Iterator[Sample], least: int) -> Iterator[list[Sample]]:
    held: list[Sample] = []
    size = 0
    for sample in samples:
        held.append(sample)
        size += sum(array.nbytes for array in sample.inputs.values())
        if size >= WINDOW_BYTES and len(held) >= least:
            yield held
            held, size = [], 0
    if held:
        yield held


def _stacked(rows: Sequence[Sample], names: Sequence[str]) -> tuple[tuple[Tensor, ...], Tensor | None]:
    inputs = tuple(torch.from_numpy(np.concatenate([row.inputs[name] for row in rows])) for name in names)
    labels = [row.label for row in rows if row.label is not None]
    return inputs, torch.tensor(labels) if labels else None
