"""What the sketches of devices say of each: when its data changed, and how far it is from where it was.

A device's reference is its own first weeks on a release, not the data that the model was judged on: those differ
from each other on every device, and for ever. How far it is from the latter, the device says itself
(`edgewright.drift`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgewright.telemetry.sketch import DataSketch
from edgewright_fleet.hub.sketches import Columns, columns, to_bytes
from edgewright_fleet.retraining.triggers.detector import Alarm, Detector
from edgewright_fleet.retraining.triggers.drift_test import DriftTest, StreamName
from edgewright_fleet.retraining.triggers.evidence import Array, Evidence, evidence_of

RECENT_SAMPLES = 2000
"""Of a device whose data has not changed, how many of the newest are shown beside those before."""
FLAPS = 3
"""A device that changed so often does not drift, it flaps: a loose cable, a sun blind. Nobody retrains for it."""
DAY_S = 86400.0
BATCH = 128
"""Devices that are read and followed at once: some 10 MB. More are no faster."""


@dataclass(frozen=True)
class History:
    """The sketches of one device on the release that it runs."""

    device: str
    profile: str
    sketches: Columns
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def release(self) -> str:
        return self.sketches.release

    def like(self, sketch: DataSketch) -> bool:
        """Whether a sketch is of the same figures."""
        return _shape(self.sketches) == _shape(_columns_of(sketch))


@dataclass(frozen=True)
class Change:
    """A device's data changed at `at_s`, as far as can be told, and it was certain at `seen_s` (Unix seconds)."""

    at_s: float
    seen_s: float
    stream: StreamName
    evidence: float
    """Natural log of the sum of likelihood ratios."""
    effect: float
    """Of counts the population stability index, less what chance gives; of inputs standard deviations."""


@dataclass(frozen=True)
class DeviceDrift:
    """One device: where its data was, where it is, and what changed in between."""

    device: str
    profile: str
    release: str
    labels: Mapping[str, str]
    samples: int
    block_s: float
    """What was looked at as one, in seconds; 0: sketches as they were kept."""
    settled: bool
    """Whether there is enough of a reference for a change to be seen."""
    changes: tuple[Change, ...]
    effects: Mapping[StreamName, float]
    """Of now against before the first change."""
    dispersions: Mapping[StreamName, float]
    before: Mapping[StreamName, tuple[float, ...]]
    now: Mapping[StreamName, tuple[float, ...]]
    course: Array = field(default_factory=lambda: np.empty((0, 2)), compare=False)
    """[block, (Unix seconds at its end, its effect on the classes)], by time."""
    drifting: tuple[StreamName, ...] = ()
    """The streams that are another since a change, and still away from where they were."""

    @property
    def flapping(self) -> bool:
        """Whether its data goes to and fro."""
        return len(self.changes) >= FLAPS

    @property
    def since_s(self) -> float | None:
        """When it left the reference; None: it is there."""
        return self.changes[0].at_s if self.drifting else None


def histories(
    sketches: Iterable[tuple[str, Columns]], about: Mapping[str, tuple[str, Mapping[str, str]]]
) -> Iterator[History]:
    """Of each device. `about` gives profile and labels of a device."""
    for device, columns_ in sketches:
        profile, labels = about.get(device, ("unknown", {}))
        yield History(device, profile, columns_, labels)


def follow(
    devices: Iterable[History],
    test: DriftTest,
    *,
    block_s: float | None = None,
    reference: DataSketch | None = None,
) -> list[DeviceDrift]:
    """What each device's sketches say, in the order of the devices.

    `block_s` merges sketches to spans of that length first; 0 takes them as they are. None does so too, and
    looks at devices that flap by whole days, as data does that follows the hour of the day. With a `reference`
    the devices' data is held against that sketch and not against their own first blocks.
    """
    found: list[DeviceDrift] = []
    waiting = iter(devices)
    while chunk := list(itertools.islice(waiting, BATCH)):
        of_chunk = _follow(chunk, test, block_s or 0.0, reference)
        again = [number for number, device in enumerate(of_chunk) if block_s is None and device.flapping]
        by_days = _follow([chunk[number] for number in again], test, DAY_S, reference)
        for number, device in zip(again, by_days, strict=True):
            of_chunk[number] = device
        found += of_chunk
    return found


def _follow(
    devices: Sequence[History], test: DriftTest, block_s: float, reference: DataSketch | None
) -> list[DeviceDrift]:
    by_shape: dict[object, list[int]] = {}
    for number, history in enumerate(devices):
        by_shape.setdefault(_shape(history.sketches), []).append(number)
    found: dict[int, DeviceDrift] = {}
    for numbers in by_shape.values():
        results = _follow_alike([devices[n] for n in numbers], test, block_s, reference)
        found.update(zip(numbers, results, strict=True))
    return [found[number] for number in range(len(devices))]


@dataclass(frozen=True)
class _Blocks:
    """Of one device: times, and the sums of each stream as [block, sum]."""

    at_s: Array
    rows: Mapping[StreamName, Array]


def _follow_alike(
    devices: Sequence[History], test: DriftTest, block_s: float, reference: DataSketch | None
) -> list[DeviceDrift]:
    blocks = [_blocks(history, block_s, reference) for history in devices]
    widths = {name: rows.shape[1] for name, rows in blocks[0].rows.items() if name in test.weights}
    streams = {name: evidence_of(test, name, width) for name, width in widths.items()}
    detector = Detector(test, len(devices), streams, widths)
    against = _rows(_columns_of(reference), _centre(_columns_of(reference))) if reference else None
    if against is not None:
        detector.set_reference({name: np.repeat(against[name], len(devices), axis=0) for name in widths})
    alarms: list[list[Alarm]] = [[] for _ in devices]
    steps = np.array([len(b.at_s) for b in blocks])
    for step in range(int(steps.max())):
        present = step < steps
        rows = {
            name: np.array(
                [
                    b.rows[name][step] if there else np.zeros(width)
                    for b, there in zip(blocks, present, strict=True)
                ]
            )
            for name, width in widths.items()
        }
        for alarm in detector.advance(rows, present):
            alarms[alarm.device].append(alarm)
    dispersions = {name: stream.dispersion() for name, stream in detector.streams.items()}
    return [
        _result(
            history, blocks[i], alarms[i], streams, {name: d[i] for name, d in dispersions.items()},
            against, test.settle_blocks, block_s,
        )
        for i, history in enumerate(devices)
    ]  # fmt: skip


def _result(
    history: History,
    blocks: _Blocks,
    alarms: Sequence[Alarm],
    streams: Mapping[StreamName, Evidence],
    dispersions: Mapping[StreamName, Array],
    reference: Mapping[StreamName, Array] | None,
    settle: int,
    block_s: float,
) -> DeviceDrift:
    samples = _samples(blocks)
    recent = len(samples) - int(np.searchsorted(samples[::-1].cumsum(), RECENT_SAMPLES)) - 1
    first, last = (alarms[0].start, alarms[-1].start) if alarms else (max(recent, 1), max(recent, 1))
    before, now, effects = {}, {}, {}
    course = np.empty((0, 2))
    for name, evidence in streams.items():
        rows = blocks.rows[name]
        old = reference[name][0] if reference else rows[:first].sum(0)
        new, dispersion = rows[last:].sum(0), dispersions[name]
        before[name], now[name] = tuple(old.tolist()), tuple(new.tolist())
        effects[name] = float(evidence.effect(old, new, dispersion)) if new.any() and old.any() else 0.0
        if name == "classes":
            values = evidence.effect(
                np.broadcast_to(old, rows.shape), rows, np.broadcast_to(dispersion, (len(rows), 1))
            )
            course = np.stack([blocks.at_s, values], axis=1)
    changes = tuple(
        Change(
            float(blocks.at_s[max(a.start - 1, 0)]),
            float(blocks.at_s[a.step]),
            a.stream,
            a.evidence,
            a.effect,
        )
        for a in alarms
    )
    # The stream that is first starts all of them anew, so that the others have their say about the change here.
    changed = {change.stream for change in changes}
    if changes:
        changed |= {
            name for name in streams if _certain(streams[name], before[name], now[name], dispersions[name])
        }
    return DeviceDrift(
        device=history.device,
        profile=history.profile,
        release=history.release,
        labels=history.labels,
        samples=int(samples.sum()),
        block_s=block_s,
        settled=len(samples) > settle,
        changes=changes,
        effects=effects,
        dispersions={name: float(d.max()) for name, d in dispersions.items()},
        before=before,
        now=now,
        course=course,
        drifting=tuple(n for n in streams if n in changed and effects[n] >= streams[n].least),
    )


def _certain(evidence: Evidence, before: Sequence[float], now: Sequence[float], dispersion: Array) -> bool:
    """Whether a stream too is another since a change that was found: by chance once in a hundred (Ville 1939)."""
    old, new = np.array(before), np.array(now)
    return bool(old.any() and new.any() and evidence.log_ratio(old, old + new, dispersion) >= math.log(100))


def _blocks(history: History, block_s: float, reference: DataSketch | None) -> _Blocks:
    sketches = history.sketches
    at_s = sketches.at_s
    rows = _rows(sketches, _centre(_columns_of(reference) if reference else sketches))
    if block_s > 0:
        # The last span is not over, and half a day is not like a whole one.
        first = np.flatnonzero(np.diff(at_s // block_s, prepend=-1.0))
        rows = {name: np.add.reduceat(sums, first, axis=0)[:-1] for name, sums in rows.items()}
        at_s = at_s[first[1:] - 1]
    return _Blocks(at_s, rows)


def _samples(blocks: _Blocks) -> Array:
    if "classes" in blocks.rows:
        return np.asarray(blocks.rows["classes"].sum(1))
    return next((rows[:, 0] for rows in blocks.rows.values()), np.zeros(len(blocks.at_s)))


def _rows(sketches: Columns, centre: Array) -> dict[StreamName, Array]:
    """The sums of each stream that a model has."""
    rows: dict[StreamName, Array] = {}
    if sketches.classes.shape[1]:
        rows["classes"] = sketches.classes
    if sketches.confidence.shape[1]:
        rows["confidence"] = sketches.confidence
    if centre.size:
        samples, moments = sketches.samples[:, None], _moments(sketches)
        means, squares = moments[..., 0] - centre, moments[..., 1] ** 2
        rows["inputs"] = np.concatenate([samples, samples * means, samples * (squares + means**2)], axis=1)
    return rows


def _centre(sketches: Columns) -> Array:
    return _moments(sketches)[0, :, 0]


def _moments(sketches: Columns) -> Array:
    """[sketch, figure, (mean, deviation)]; the level and the spread of a channel are figures each."""
    return sketches.moments.reshape(len(sketches.moments), -1, 2)


def _columns_of(sketch: DataSketch) -> Columns:
    return columns([(0.0, "", to_bytes(sketch))])


def _shape(sketches: Columns) -> tuple[object, ...]:
    return sketches.classes.shape[1], sketches.confidence.shape[1], sketches.inputs
