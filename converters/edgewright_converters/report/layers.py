"""The error of every activation as its runtime computes it, all model files side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgewright_converters.evidence import SAMPLES_OF, Activation, Evidence, FileErrors

COLOURS = ("first", "second", "third", "fourth")
MOST_DB = 60.0
"""Where the scale ends: what is better than that is exact for all that follows."""


def layers(evidence: Evidence, users: dict[str, str]) -> str:
    """A row an activation in the order of the model, a bar a file; `users` names the profiles of each file."""
    known = {activation.name: activation for activation in evidence.activations}
    errors = [_worst_by_name(file) for file in evidence.files]
    order = in_order([list(known), *map(list, errors)])
    values = [db for found in errors for db in found.values()]
    end = min(MOST_DB, max([20.0, *values, *(a.grid_db for a in known.values())]))
    keys = "".join(
        f"<span class='key {COLOURS[i % len(COLOURS)]}'></span>{file.format} {file.precision} "
        f"({escape(users.get(file.digest, ''))})"
        for i, file in enumerate(evidence.files)
    )
    samples = max((file.samples for file in evidence.files), default=0)
    rows = "".join(_row(name, known.get(name), [found.get(name) for found in errors], end) for name in order)
    return (
        "<p class=note>Signal to quantisation noise of each activation, decibels: the integers that the runtime's "
        f"own kernels hand on, against the float graph, measured on this host on {samples} "
        f"{SAMPLES_OF[evidence.data]}. Each holds the noise of all layers before it; – is not stored by itself in "
        f"that file. TFLite is run in LiteRT's built-in kernels, which keep their tensors.</p><p class=note>{keys}"
        "<span class='key mark'></span>what the tensor's grid alone would leave, predicted from its histogram. "
        f"The scale runs from 0 to {end:.0f} dB.</p>{_lowest(evidence)}{rows}"
    )


def in_order(lists: Sequence[Sequence[str]]) -> list[str]:
    """All names once; one that earlier lists lack follows the name before it in its own."""
    order: list[str] = []
    for names in lists:
        place = 0
        for name in names:
            if name not in order:
                order.insert(place, name)
            place = order.index(name) + 1
    return order


def _worst_by_name(file: FileErrors) -> dict[str, float]:
    """A TFLite file may hold an activation several times over, before and after it changes its layout."""
    found: dict[str, float] = {}
    for layer in file.layers:
        found[layer.name] = min(layer.sqnr_db, found.get(layer.name, layer.sqnr_db))
    return found


def _row(name: str, known: Activation | None, values: Sequence[float | None], end: float) -> str:
    lanes, figures = [], []
    for i, db in enumerate(values):
        colour = COLOURS[i % len(COLOURS)]
        bar = f"<i class={colour} style='left:0;width:{_share(db, end)}%'></i>" if db is not None else ""
        mark = f"<i class=mark style='left:{_share(known.grid_db, end)}%'></i>" if known else ""
        lanes.append(f"<span class=lane>{bar}{mark}</span>")
        figures.append("–" if db is None else f"{db:.1f}")
    operator = f" <span class=soft>{escape(known.operator)}</span>" if known else ""
    return (
        f"<div class=row><span>{escape(name)}{operator}</span><span class=track>{''.join(lanes)}</span>"
        f"<span>{' · '.join(figures)} dB</span></div>"
    )


def _share(db: float, end: float) -> float:
    return round(100 * min(max(db / end, 0.0), 1.0), 1)


def _lowest(evidence: Evidence) -> str:
    lines = []
    for file in evidence.files:
        if file.layers:
            low = min(file.layers, key=lambda layer: layer.sqnr_db)
            lines.append(f"{file.format}: lowest at {escape(low.name)}, {low.sqnr_db:.1f} dB")
    return f"<p>{'; '.join(lines)}.</p>" if lines else ""
