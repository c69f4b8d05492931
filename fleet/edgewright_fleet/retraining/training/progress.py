"""`Progress`: where a training run stands, a line of `progress.jsonl` at a time; rank 0 writes, anyone reads.

A line is not flushed to the disk: one that a power cut took is told again by the steps that follow.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from edgewright.contract import CONTRACT, to_json
from edgewright.durable_file import make_folder, storage_error

from ..job import TrainingJob
from .whole import newest_whole

FILE = "progress.jsonl"
PERIOD_S = 1.0
"""Between two lines at least: a step may take a millisecond, and nobody reads a thousand lines a second."""
_TAIL_BYTES = 65536


class Progress(BaseModel):
    """What rank 0 said at one time. A line without a step marks a start of the ranks."""

    model_config = CONTRACT
    at: AwareDatetime
    restart: NonNegativeInt = 0
    """How often the launcher had started the ranks again."""
    step: NonNegativeInt | None = None
    steps: PositiveInt | None = None
    metrics: dict[str, float | str] = {}
    """A value that is no number is written as text: `nan`, `inf`."""
    steps_per_s: NonNegativeFloat | None = None
    left_s: NonNegativeFloat | None = None

    @property
    def loss(self) -> float | None:
        """The loss, where it was reported and is a number."""
        loss = self.metrics.get("loss")
        return loss if isinstance(loss, float) else None


class ProgressFile:
    """Appends to `progress.jsonl` under `folder`. One process writes it."""

    def __init__(self, folder: Path, restart: int, period_s: float = PERIOD_S) -> None:
        self._path = folder / FILE
        self._restart = restart
        self._period_s = period_s
        self._next_s = 0.0
        self._last: tuple[int, float] | None = None
        self._steps_per_s: float | None = None
        try:
            make_folder(folder)
            broken = self._path.exists() and not self._path.read_bytes()[-1:] in (b"", b"\n")
            self._file = self._path.open("ab")
            if broken:
                self._file.write(b"\n")  # a crash broke its last line off
        except OSError as error:
            raise storage_error(error, self._path) from None
        self._write(Progress(at=datetime.now(timezone.utc), restart=restart))

    def report(self, step: int, steps: int | None, metrics: Mapping[str, Any]) -> None:
        """Write a line if the last is old enough, or the run is complete. Metrics are read only then."""
        now_s = time.monotonic()
        if now_s < self._next_s and step != steps:
            return
        self._next_s = now_s + self._period_s
        pace = self._pace(step, now_s)
        left_s = (steps - step) / pace if steps is not None and pace else None
        self._write(
            Progress(
                at=datetime.now(timezone.utc),
                restart=self._restart,
                step=step,
                steps=steps,
                metrics={name: _number(value) for name, value in metrics.items()},
                steps_per_s=pace,
                left_s=None if left_s is None else max(0.0, left_s),
            )
        )

    def _pace(self, step: int, now_s: float) -> float | None:
        """Steps per second, smoothed over about five lines."""
        if self._last is not None and step > self._last[0]:
            latest = (step - self._last[0]) / max(now_s - self._last[1], 1e-9)
            before = self._steps_per_s
            self._steps_per_s = latest if before is None else 0.8 * before + 0.2 * latest
        self._last = step, now_s
        return self._steps_per_s

    def _write(self, line: Progress) -> None:
        try:
            self._file.write(to_json(line) + b"\n")
            self._file.flush()
        except OSError as error:
            raise storage_error(error, self._path) from None


def _number(value: Any) -> float | str:
    number = (
        float(value.detach()) if hasattr(value, "detach") else float(value)
    )  # a tensor, without importing torch
    return number if math.isfinite(number) else str(number)


def progress_lines(folder: Path) -> list[Progress]:
    """The last lines (64 KiB of them), oldest first; what is no line of ours is left out."""
    try:
        with (folder / FILE).open("rb") as file:
            start = max(0, file.seek(0, 2) - _TAIL_BYTES)
            file.seek(start)
            parts = file.read().split(b"\n")
    except OSError:
        return []
    lines = []
    # The last part is what follows the last newline; the first, where the file was cut, the rest of a line.
    for text in parts[bool(start) : -1]:
        with contextlib.suppress(ValidationError):
            lines.append(Progress.model_validate_json(text))
    return lines


def figures(job: TrainingJob) -> dict[str, Any]:
    """The fields of `JobStatus` that the job's folder tells, whichever backend runs it."""
    lines = progress_lines(job.folder)
    last = next((line for line in reversed(lines) if line.step is not None), None)
    told: dict[str, Any] = {
        "restarts": lines[-1].restart if lines else 0,
        "checkpoint_step": newest_whole(job.folder),
    }
    if last is not None:
        told |= {"step": last.step, "steps": last.steps, "loss": last.loss, "left_s": last.left_s}
    return told
