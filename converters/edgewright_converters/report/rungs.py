"""What each rung of the ladder bought: decibels and top classes on the calibration samples, and its seconds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgewright.figures import seconds
from edgewright_converters.ascent import Attempt
from edgewright_converters.rungs import DATA_FREE, EXPECTATION, RUNGS


def rungs(attempts: Sequence[Attempt]) -> str:
    """A row an attempt, numbered as in the picture of the candidates."""
    if not attempts:
        return "<p class=note>The model has no ONNX form, on which the ladder decides: none was climbed.</p>"
    what = {rung.name: rung.what for rung in (*RUNGS, *DATA_FREE)}
    values = [attempt.trial.sqnr_db for attempt in attempts]
    start, end = min(0.0, *values), max(values) * 1.02 or 1.0
    rows, before = [], start
    for number, attempt in enumerate(attempts, 1):
        after = attempt.trial.sqnr_db
        left, right = (100 * (value - start) / (end - start) for value in sorted((before, after)))
        kind = "neutral" if number == 1 else "up" if after >= before else "down"
        change = "" if number == 1 else f" ({after - before:+.1f})"
        kept = "kept" if attempt.kept else "not kept"
        rows.append(
            f"<div class='row{'' if attempt.kept else ' dropped'}'><span><b>{number} {escape(attempt.rung)}</b> "
            f"<span class=soft>{escape(what.get(attempt.rung, ''))}</span></span>"
            f"<span class=track><span class=lane><i class={kind} style='left:{left:.1f}%;"
            f"width:{right - left:.1f}%'></i></span></span>"
            f"<span>{after:.1f} dB{change}{changed(attempt)}, took {seconds(attempt.seconds)}, "
            f"<b>{kept}</b></span></div>"
        )
        if attempt.kept:
            before = after
    without_data = attempts[0].rung == EXPECTATION.name
    ladder = DATA_FREE if without_data else RUNGS
    left_out = [rung.name for rung in ladder if rung.name not in {a.rung for a in attempts}]
    rest = f"<p class=note>Not climbed: {', '.join(left_out)}.</p>" if left_out else ""
    trial = attempts[0].trial
    kind_of_samples = "generated inputs" if without_data else "calibration samples"
    return (
        f"<p class=note>Signal to noise of the worst output on {trial.samples} {kind_of_samples}, as the "
        f"{trial.format} runtime executes the candidate; green is won, red is lost against what was kept before. "
        f"The scale runs from {start:.0f} to {end:.0f} dB.</p>{''.join(rows)}{rest}"
    )


def changed(attempt: Attempt) -> str:
    """How many samples changed their top class, where the model is a classifier."""
    trial = attempt.trial
    return "" if trial.changed is None else f", {trial.changed} of {trial.samples} top classes changed"
