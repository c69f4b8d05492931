"""What a run of the agent's benchmark found: one row a figure, with the limit it is held to and how it was got."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from edgewright.latency_benchmark import host_processor

Clock = Literal["wall time", "processor time", "memory", "bytes"]


@dataclass(frozen=True)
class Figure:
    """One measured figure in `unit`. Without a limit it is told beside the others, and neither met nor missed."""

    what: str
    value: float
    unit: str
    clock: Clock
    limit: float | None = None
    below: bool = False
    """Whether the limit itself is too much."""
    ratio: float | None = None
    """To the bare runtime's, where there is such a figure: (bare + added) / bare."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.limit is None:
            return None
        return self.value < self.limit if self.below else self.value <= self.limit


@dataclass(frozen=True)
class Host:
    """Where and beside what it was measured."""

    processor: str
    cores: int
    python: str
    onnxruntime: str
    load_at_start: tuple[float, float, float]
    """Of 1, 5 and 15 minutes: the other work of the machine."""

    @staticmethod
    def here() -> Host:
        return Host(
            host_processor(),
            os.cpu_count() or 1,
            platform.python_version(),
            version("onnxruntime"),
            os.getloadavg(),
        )


def table(figures: Sequence[Figure]) -> str:
    """One line a figure."""
    lines = [
        "| what | at most | found | times the bare | | how |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for figure in figures:
        limit = "" if figure.limit is None else f"{'< ' * figure.below}{figure.limit:g} {figure.unit}".strip()
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        verdict = {True: "met", False: "**missed**", None: ""}[figure.met]
        how = figure.clock + (f"; {figure.note}" if figure.note else "")
        found = f"{figure.value:.3g} {figure.unit}".strip()
        lines.append(f"| {figure.what} | {limit} | {found} | {ratio} | {verdict} | {how} |")
    return "\n".join(lines) + "\n"


def draw(moments: Sequence[tuple[int, int, int]], warm: tuple[int, int, int], path: Path) -> None:
    """Resident memory over the work done: (switches, inferences, bytes) by time."""
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(7, 3.2), layout="constrained")
    axes = picture.add_subplot()
    axes.plot([n / 1e6 for _, n, _ in moments], [rss / 1e6 for *_, rss in moments], label="resident memory")
    axes.axvline(warm[1] / 1e6, color="grey", linestyle=":", label="warm")
    axes.axhline(warm[2] / 1e6 + 2, color="red", linestyle="--", label="2 MB more than warm")
    axes.set_xlabel(f"million inferences, with {moments[-1][0]} updates among them")
    axes.set_ylabel("MB")
    axes.set_ylim(0, None)
    axes.legend(loc="lower right")
    picture.savefig(path, dpi=110)
