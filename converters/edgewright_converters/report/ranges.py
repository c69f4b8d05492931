"""What each activation takes on over the calibration data, against the grid that was chosen for it."""

from __future__ import annotations

from html import escape

from edgewright_converters.evidence import SAMPLES_OF, Activation, Evidence


def ranges(evidence: Evidence) -> str:
    """A row an activation, each on a scale of its own."""
    clipped: dict[str, list[float]] = {}
    for file in evidence.files:
        for layer in file.layers:
            if layer.clipped is not None:
                clipped.setdefault(layer.name, []).append(layer.clipped)
    samples = max((file.samples for file in evidence.files), default=0)
    rows = "".join(_row(activation, clipped.get(activation.name, [])) for activation in evidence.activations)
    return (
        "<p class=note>Each row has a scale of its own. <span class='key thin'></span>observed over the "
        f"{SAMPLES_OF[evidence.data]}, <span class='key first'></span>what the grid's 255 steps are spread over, "
        "<span class='key mark'></span>nought. Clipped: the share of float's values beyond the grid of the model "
        f"file, measured on {samples} {SAMPLES_OF[evidence.data]}; the largest of the files.</p>{rows}"
    )


def _row(activation: Activation, clipped: list[float]) -> str:
    (seen_low, seen_high), (low, high) = activation.observed, activation.chosen
    start, end = min(seen_low, low, 0.0), max(seen_high, high, 0.0)
    width = (end - start) or 1.0

    def span(kind: str, left: float, right: float) -> str:
        return (
            f"<i class={kind} style='left:{100 * (left - start) / width:.1f}%;"
            f"width:{100 * (right - left) / width:.1f}%'></i>"
        )

    lost = f", {share(max(clipped))} clipped" if clipped else ""
    operator = f"<span class=soft>{escape(activation.operator)}</span>"
    return (
        f"<div class=row><span>{escape(activation.name)} {operator}</span>"
        f"<span class=track><span class=lane>{span('first', low, high)}{span('thin', seen_low, seen_high)}"
        f"<i class=mark style='left:{100 * -start / width:.1f}%'></i></span></span>"
        f"<span>{seen_low:.3g} to {seen_high:.3g}, grid {low:.3g} to {high:.3g} "
        f"<span class=soft>by {escape(activation.method)}{lost}</span></span></div>"
    )


def share(value: float) -> str:
    """A share that may be tiny: nought is said only of nothing."""
    return "0 %" if value == 0 else f"{value * 100:.2g} %"
