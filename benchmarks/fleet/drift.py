"""How often the test of drift is wrong, and how soon it is right: ours beside fixed rules looked at each sketch.

    python -m benchmarks.fleet.drift              # some twenty minutes of one core
    python -m benchmarks.fleet.drift --quick --no-file

Simulated devices send a sketch of 1,200 inferences each five minutes, 105,120 a year. The test is the one that
`edgewright fleet drift` runs (`edgewright_fleet.retraining.triggers.detector`), at its defaults. *False alarms*:
of devices whose mix of classes never changes. *Delay*: inferences that were looked at from a change, at a random
moment within a sketch, to the end of the sketch that shows it. A shift of 10 % is a total variation of 0.1: one
answer in ten lies elsewhere. Of all such shifts the one that is hardest to see moves every class's share by the
same factor (chi-squared 4·0.1² for each inference); it is `spread`.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.fleet.drift_report import LIMIT_DELAY, LIMIT_RATE, as_markdown, draw
from edgewright.telemetry.sketch import SMOOTHING
from edgewright_fleet.retraining.triggers.detector import Detector
from edgewright_fleet.retraining.triggers.drift_test import BLOCKS_PER_YEAR, DriftTest, StreamName
from edgewright_fleet.retraining.triggers.evidence import Array, evidence_of

RESULTS = Path(__file__).parents[1] / "results"
SKETCH = 1200
HOUR, DAY = 12, 288
UNIFORM = np.full(10, 0.1)
SKEWED = (1 / np.arange(1, 11)) / (1 / np.arange(1, 11)).sum()
CRITICAL = {0.01: 21.666, 1 / BLOCKS_PER_YEAR: 39.461}
"""Of chi-squared with 9 degrees of freedom, by the chance to exceed it."""
Mix = Callable[[np.random.Generator, int, int], Array]
"""(source of chance, samples in a sketch, devices) → counts."""


def frames(shares: Array, repeat: float = 0.0) -> Mix:
    """A camera that shows the same thing again with chance `repeat`: a design effect of (1 + r) / (1 - r).

    Exact for a stretch of such a chain: given the number of runs their lengths are uniform over all
    compositions, so that the classes' counts are Pólya's urn over their runs. Runs end with the sketch.
    """

    def counts(chance: np.random.Generator, samples: int, devices: int) -> Array:
        if not repeat:
            return chance.multinomial(samples, shares, devices).astype(float)
        runs = 1 + chance.binomial(samples - 1, 1 - repeat, devices)
        of_class = chance.multinomial(runs, shares).astype(float)
        lengths = chance.standard_gamma(of_class)
        more = chance.multinomial(samples - runs, lengths / lengths.sum(1, keepdims=True))
        return of_class + more

    return counts


@dataclass(frozen=True)
class Rule:
    """A rule on one sketch against a reference of the first hour: alarm where it is true."""

    name: str
    fires: Callable[[Array, Array], Array]


def _psi(limit: float) -> Callable[[Array, Array], Array]:
    def fires(counts: Array, reference: Array) -> Array:
        p, q = ((x + SMOOTHING) / (x + SMOOTHING).sum(1, keepdims=True) for x in (counts, reference))
        return np.asarray(((p - q) * np.log(p / q)).sum(1) > limit)

    return fires


def _chi_squared(level: float) -> Callable[[Array, Array], Array]:
    def fires(counts: Array, reference: Array) -> Array:
        n, m = counts.sum(1, keepdims=True), reference.sum(1, keepdims=True)
        squares = (np.sqrt(m / n) * counts - np.sqrt(n / m) * reference) ** 2 / np.maximum(
            counts + reference, 1
        )
        return np.asarray(squares.sum(1) > CRITICAL[level])

    return fires


RULES = (
    Rule("PSI above 0.2, each sketch", _psi(0.2)),
    Rule("PSI above 0.1, each sketch", _psi(0.1)),
    Rule("chi-squared at 1 %, each sketch", _chi_squared(0.01)),
    Rule("chi-squared at 1 in 105,120, each sketch", _chi_squared(1 / BLOCKS_PER_YEAR)),
)
OURS = "Edgewright"
NAIVE = "frames repeat, design effect 19, taken as independent"
CONFIDENCE = np.array([0, 0, 0, 1, 1, 2, 3, 5, 10, 10, 20, 30, 18]) / 100
MOMENTS = 6


def detector_of(test: DriftTest, devices: int, bins: int, *, every: bool = False) -> Detector:
    """A fresh one, of the classes alone or of every stream: 13 bins of confidence, six moments of an input."""
    widths: dict[StreamName, int] = {"classes": bins}
    if every:
        widths |= {"confidence": len(CONFIDENCE), "inputs": 1 + 2 * MOMENTS}
    return Detector(test, devices, {n: evidence_of(test, n, w) for n, w in widths.items()}, widths)


def other_streams(chance: np.random.Generator, devices: int) -> dict[StreamName, Array]:
    """Confidence as networks have it, and brightness and contrast of three channels, of independent frames."""
    means = chance.standard_normal((devices, MOMENTS)) / math.sqrt(SKETCH)
    squares = chance.chisquare(SKETCH - 1, (devices, MOMENTS)) / SKETCH + means**2
    samples = np.full((devices, 1), float(SKETCH))
    return {
        "confidence": chance.multinomial(SKETCH, CONFIDENCE, devices).astype(float),
        "inputs": np.concatenate([samples, SKETCH * means, SKETCH * squares], axis=1),
    }


def false_alarms(
    mix: Mix, bins: int, years: float, seed: int, *, naive: bool = False, every: bool = False
) -> dict[str, Any]:
    """Alarms of devices that never change, half a year each, by rule."""
    chance, test, devices = np.random.default_rng(seed), DriftTest(), max(round(years * 2), 1)
    detector, steps = detector_of(test, devices, bins, every=every), BLOCKS_PER_YEAR // 2
    if naive:  # as if frames were independent
        detector.streams["classes"].dispersion = lambda: np.ones((devices, 1))  # type: ignore[method-assign]
    everyone = np.ones(devices, bool)
    found = {OURS: 0} | ({rule.name: 0 for rule in RULES} if bins == 10 and not naive else {})
    reference = np.zeros((devices, bins))
    for step in range(steps):
        counts = mix(chance, SKETCH, devices)
        rows: dict[StreamName, Array] = {"classes": counts}
        if every:
            rows |= other_streams(chance, devices)
        found[OURS] += len(detector.advance(rows, everyone))
        if step < HOUR:
            reference += counts
        elif len(found) > 1:
            for rule in RULES:
                found[rule.name] += int(rule.fires(counts, reference).sum())
    measured = devices * steps / BLOCKS_PER_YEAR
    rates = {name: {"alarms": n, **_rate(n, measured)} for name, n in found.items()}
    dispersion = float(np.median(detector.streams["classes"].dispersion())) if not naive else 1.0
    return {"device_years": round(measured, 2), "dispersion": round(dispersion, 2), "rules": rates}


def delays(
    detector: Detector,
    reference: Array,
    before: Array,
    after: Array,
    seed: int,
    *,
    sketch: int,
    repeat: float,
) -> dict[str, dict[str, float]]:
    """By rule, inferences from a change to the alarm, of devices that were quiet until then; at most a day."""
    chance, detector = np.random.default_rng(seed), copy.deepcopy(detector)
    devices = len(reference)
    at = chance.integers(0, sketch, devices)
    """How many inferences of the first sketch came before the change."""
    seen = {name: np.full(devices, np.inf) for name in (OURS, *(rule.name for rule in RULES))}
    for step in range(DAY * SKETCH // sketch):
        counts = frames(after, repeat)(chance, sketch, devices)
        if step == 0:
            old = frames(before, repeat)(chance, sketch, devices)
            counts = chance.binomial(old.astype(int), (at / sketch)[:, None]) + chance.binomial(
                counts.astype(int), (1 - at / sketch)[:, None]
            ).astype(float)
        since = sketch - at + step * sketch
        alarmed = np.zeros(devices, bool)
        alarmed[[alarm.device for alarm in detector.advance({"classes": counts}, np.ones(devices, bool))]] = (
            True
        )
        for name, fired in ((OURS, alarmed), *((rule.name, rule.fires(counts, reference)) for rule in RULES)):
            seen[name] = np.where(np.isinf(seen[name]) & fired, since, seen[name])
        if np.isfinite(seen[OURS]).all() and step * sketch > 40_000:
            break
    return {name: _summary(values) for name, values in seen.items()}


def shifts_of(shares: Array) -> dict[str, Array]:
    """Mixes a total variation of 0.1 away."""
    top = int(shares.argmax())
    one = shares * (1 - 0.1 / (1 - shares[top]))
    one[top] = shares[top] + 0.1
    swap = shares.copy()
    swap[top] -= 0.1
    swap[(top + 1) % len(shares)] += 0.1
    # Shares that together are one half grow by a fifth, the others shrink by as much.
    order, grows, room = np.argsort(-shares), np.zeros(len(shares)), 0.5
    for number in order:
        grows[number] = min(1.0, room / shares[number])
        room -= grows[number] * shares[number]
    moved = shares * (2 * grows - 1)
    spread = shares + moved * 0.2 / np.abs(moved).sum()
    return {"spread": spread, "one class": one, "two classes": swap}


def measure(years: float, devices: int, seed: int) -> dict[str, Any]:
    """Every table."""
    quiet: dict[str, Any] = {}
    for name, mix, bins in (
        ("ten equal classes", frames(UNIFORM), 10),
        ("ten skewed classes (1/rank)", frames(SKEWED), 10),
        ("two classes, 99 to 1", frames(np.array([0.99, 0.01])), 2),
        ("32 equal classes", frames(np.full(32, 1 / 32)), 32),
        ("ten equal classes, frames repeat, design effect 4", frames(UNIFORM, 0.6), 10),
        ("ten equal classes, frames repeat, design effect 19", frames(UNIFORM, 0.9), 10),
    ):
        quiet[name] = false_alarms(mix, bins, years, seed)
        click.echo(f"{name}: {quiet[name]['rules'][OURS]}", err=True)
    quiet["ten equal classes, with confidence and inputs"] = false_alarms(
        frames(UNIFORM), 10, years / 2, seed, every=True
    )
    quiet[NAIVE] = false_alarms(frames(UNIFORM, 0.9), 10, 0.5, seed, naive=True)
    late: list[dict[str, Any]] = []
    cases = (
        ("ten equal classes", UNIFORM, 0.0, SKETCH, DAY),
        ("ten equal classes", UNIFORM, 0.0, SKETCH, HOUR),
        ("ten skewed classes (1/rank)", SKEWED, 0.0, SKETCH, DAY),
        ("ten equal classes, sketches of 600", UNIFORM, 0.0, 600, DAY * 2),
        ("ten equal classes, sketches of 300", UNIFORM, 0.0, 300, DAY * 4),
        ("ten equal classes, design effect 4", UNIFORM, 0.6, SKETCH, DAY),
        ("ten equal classes, design effect 19", UNIFORM, 0.9, SKETCH, DAY),
    )
    for name, shares, repeat, sketch, settled in cases:
        chance, detector = np.random.default_rng(seed), detector_of(DriftTest(), devices, 10)
        reference = np.zeros((devices, 10))
        for step in range(settled):
            counts = frames(shares, repeat)(chance, sketch, devices)
            detector.advance({"classes": counts}, np.ones(devices, bool))
            if step < HOUR * SKETCH // sketch:
                reference += counts
        for shift, after in shifts_of(shares).items():
            found = delays(detector, reference, shares, after, seed + 1, sketch=sketch, repeat=repeat)
            late.append(
                {"case": name, "reference_inferences": settled * sketch, "shift": shift, "rules": found}
            )
            click.echo(f"{name}, {settled * sketch}, {shift}: {found[OURS]}", err=True)
    return {"quiet": quiet, "by_the_hour": by_the_hour(min(years, 5.0), seed), "delays": late}


def by_the_hour(years: float, seed: int) -> dict[str, Any]:
    """Alarms of devices whose mix goes through the same cycle each day, looked at sketch by sketch and by days."""
    chance, devices, days = np.random.default_rng(seed), 10, round(years * 36.5)
    test, everyone = DriftTest(), np.ones(10, bool)
    detectors = {"each sketch": detector_of(test, devices, 10), "each day": detector_of(test, devices, 10)}
    alarms = dict.fromkeys(detectors, 0)
    for _ in range(days):
        whole = np.zeros((devices, 10))
        for step in range(DAY):
            shares = UNIFORM * (1 + 0.3 * np.cos(2 * np.pi * (step / DAY + np.arange(10) / 10)))
            counts = chance.multinomial(SKETCH, shares, devices).astype(float)
            whole += counts
            alarms["each sketch"] += len(detectors["each sketch"].advance({"classes": counts}, everyone))
        alarms["each day"] += len(detectors["each day"].advance({"classes": whole}, everyone))
    measured = devices * days / 365
    return {"device_years": measured} | {
        name: {"alarms": n, **_rate(n, measured)} for name, n in alarms.items()
    }


def _rate(alarms: int, years: float) -> dict[str, float]:
    """Alarms a device-year with the exact 95 % interval (Garwood 1936)."""
    return {
        "rate": round(alarms / years, 4),
        "low": round(_poisson_bound(alarms - 1, 0.975) / years, 4) if alarms else 0.0,
        "high": round(_poisson_bound(alarms, 0.025) / years, 4),
    }


def _poisson_bound(count: int, chance: float) -> float:
    """The mean at which so many events or fewer have that chance."""
    low, high = 0.0, count + 10 * math.sqrt(count + 1) + 10
    for _ in range(60):
        mean = (low + high) / 2
        terms = np.arange(count + 1)
        logs = terms * math.log(mean) - mean - np.array([math.lgamma(k + 1) for k in terms])
        low, high = (mean, high) if np.exp(logs).sum() > chance else (low, mean)
    return high


def _summary(values: Array) -> dict[str, float]:
    seen = values[np.isfinite(values)]
    summary = {"seen_within_a_day": round(len(seen) / len(values), 4)}
    if len(seen) == len(values):
        summary["mean"] = round(float(seen.mean()), 1)
        summary["mean_error"] = round(float(seen.std() / math.sqrt(len(seen))), 1)
    if len(seen) >= 0.95 * len(values):
        ordered = np.sort(np.where(np.isfinite(values), values, 1e12))
        summary["p50"], summary["p95"] = (
            float(ordered[int(share * (len(values) - 1))]) for share in (0.5, 0.95)
        )
    return summary | {"within_2000": round(float((values <= LIMIT_DELAY).mean()), 4)}


@click.command(epilog="Example: python -m benchmarks.fleet.drift --quick --no-file")
@click.option(
    "--years", default=20.0, show_default=True, type=click.FloatRange(0.5), help="Device-years each."
)
@click.option(
    "--devices", default=1000, show_default=True, type=click.IntRange(20), help="Whose delay is measured."
)
@click.option("--seed", default=1, show_default=True)
@click.option("--quick", is_flag=True, help="One device-year and 100 devices: proves that all works.")
@click.option("--no-file", is_flag=True, help="Print only; write no results.")
def main(years: float, devices: int, seed: int, quick: bool, no_file: bool) -> None:
    """Simulate devices that drift and devices that do not; exits with 1 where a limit is missed."""
    began = time.process_time()
    if quick:
        years, devices = 1.0, 100
    tables = measure(years, devices, seed)
    date = datetime.now(timezone.utc).date().isoformat()
    text = as_markdown(tables, date, devices)
    click.echo(text)
    click.echo(f"{time.process_time() - began:.0f} s of processor time", err=True)
    if not no_file:
        stem = RESULTS / f"fleet-drift-{date}"
        stem.with_suffix(".md").write_text(text, encoding="utf-8")
        document = {"date": date, "years": years, "devices": devices, "seed": seed, **tables}
        stem.with_suffix(".json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        draw(tables, stem.with_suffix(".png"))
    quiet = [found["rules"][OURS] for name, found in tables["quiet"].items() if name != NAIVE]
    wanted = [
        row["rules"][OURS]
        for row in tables["delays"]
        if row["reference_inferences"] == DAY * SKETCH and "effect" not in row["case"]
    ]
    met = all(rate["rate" if quick else "high"] < LIMIT_RATE for rate in quiet)
    if not met or not all(row.get("mean", math.inf) <= LIMIT_DELAY for row in wanted):
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
