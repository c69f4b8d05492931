"""Rollouts as the hub shows them: read from their record, a store file or a cluster's objects, reduced to what a
page or a metric needs, kept briefly.

The record belongs to the controllers. Here it is read, and an operator's wish is put in exactly as the command
puts it (`OPERATIONS`). A state of 10,000 devices takes a while to read, so that what was read serves for some
seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from edgewright.errors import EdgewrightError, RolloutError
from edgewright_fleet.rollout.record import NOT_BEGUN, KeptDecision, Record, Summary, Wish
from edgewright_fleet.rollout.state import ENDED, RolloutState

log = logging.getLogger("edgewright.hub")
FRESH_S = 3.0
"""For how long what was read serves; a page looks again after five."""

OPERATIONS: tuple[Wish, ...] = ("pause", "abort")
"""What an operator may ask of a rollout on the page."""


@dataclass(frozen=True)
class RolloutSummary:
    """A rollout in one line."""

    name: str
    fleet: str
    release: str
    phase: str
    wave: int
    waves: int
    devices: int
    exposed: int
    failed: int
    verdict: str
    controlled: bool

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in ENDED

    @property
    def begun(self) -> bool:
        """Whether there is anything to see of it."""
        return self.phase not in NOT_BEGUN


@dataclass(frozen=True)
class ExposedDevice:
    """A device that was told to run the release."""

    name: str
    profile: str
    online: bool
    wave: int
    stand: str
    before: str
    reason: str


@dataclass(frozen=True)
class WaveProgress:
    """How far a wave is: devices that it was planned for, by where they stand."""

    number: int
    devices: int
    stands: dict[str, int]
    standing: str


@dataclass(frozen=True)
class RolloutDetail:
    """Everything that the page of one rollout shows."""

    summary: RolloutSummary
    waves: tuple[WaveProgress, ...]
    gates: dict[str, str]
    exposed: tuple[ExposedDevice, ...]
    decisions: tuple[KeptDecision, ...]


class Rollouts:
    """The rollouts of one fleet in the record that `opened` gives; for any thread."""

    def __init__(self, opened: Callable[[], Record], fleet: str) -> None:
        self._opened, self.fleet = opened, fleet
        self._lock = threading.Lock()
        self._read: dict[str, tuple[float, RolloutDetail]] = {}
        self._problem = ""

    def summaries(self) -> list[RolloutSummary]:
        """Every rollout of the fleet, newest first. Raises `EdgewrightError`."""
        with closing(self._opened()) as record:
            found = [each for each in record.summaries(time.time()) if each.fleet == self.fleet]
        return [
            _not_begun(each) if each.phase in NOT_BEGUN else self._detail(each.name).summary for each in found
        ]

    def readable(self) -> list[RolloutSummary]:
        """The same, and none while the record cannot be read: a cluster that is away hides nothing else."""
        problem, found = "", list[RolloutSummary]()
        try:
            found = self.summaries()
        except EdgewrightError as error:
            problem = str(error)
        if problem and problem != self._problem:
            log.warning("rollouts: %s", problem)
        self._problem = problem
        return found

    def detail(self, name: str) -> RolloutDetail:
        """One rollout. Raises `RolloutError` where the fleet has none of that name."""
        detail = self._detail(name)
        if detail.summary.fleet != self.fleet:
            raise RolloutError(f"no rollout '{name}' of fleet '{self.fleet}'")
        return detail

    def ask(self, name: str, operation: Wish, by: str) -> None:
        """Put the wish of an operator, `by`, into the record. Raises `RolloutError`."""
        self.detail(name)
        with closing(self._opened()) as record:
            record.request(name, operation, time.time(), by=by)
        log.info("%s asked for %s of %s", by, operation, name)
        with self._lock:
            self._read.pop(name, None)

    def _detail(self, name: str) -> RolloutDetail:
        with self._lock:
            at_s, detail = self._read.get(name, (0.0, None))
            if detail is None or (not detail.summary.ended and time.monotonic() - at_s > FRESH_S):
                detail = self._load(name)
                self._read[name] = time.monotonic(), detail
            return detail

    def _load(self, name: str) -> RolloutDetail:
        with closing(self._opened()) as record:
            spec, state = record.load(name)
            decisions = tuple(record.decisions(name))
            held = record.is_held(name, time.time())
        exposed = state.exposed
        failed = state.standing("failed", "reverting", "reverted", "stranded")
        summary = RolloutSummary(
            name=name,
            fleet=spec.fleet,
            release=str(state.release),
            phase=state.phase,
            wave=state.wave + 1,
            waves=len(state.waves),
            devices=len(state.devices),
            exposed=len(exposed),
            failed=sum(1 for record in failed.values() if record.reason),
            verdict=state.verdict or "",
            controlled=held,
        )
        gates = {key: str(value) for key, value in spec.gates.model_dump(mode="json").items()}
        return RolloutDetail(summary, _waves(state), gates, _exposed(state), decisions)


def _not_begun(found: Summary) -> RolloutSummary:
    return RolloutSummary(
        name=found.name,
        fleet=found.fleet,
        release=found.release,
        phase=found.phase,
        wave=0,
        waves=0,
        devices=0,
        exposed=0,
        failed=0,
        verdict=found.verdict or "",
        controlled=False,
    )


def _waves(state: RolloutState) -> tuple[WaveProgress, ...]:
    rows = []
    for number, names in enumerate(state.waves):
        stands: Counter[str] = Counter(state.devices[name].stand for name in names)
        if number > state.wave:
            standing = "to come"
        elif number < state.wave or state.phase == "succeeded":
            standing = "passed"
        else:
            standing = state.phase
        rows.append(WaveProgress(number + 1, len(names), dict(stands), standing))
    return tuple(rows)


def _exposed(state: RolloutState) -> tuple[ExposedDevice, ...]:
    rows = [
        ExposedDevice(
            name=name,
            profile=record.profile,
            online=record.online,
            wave=(record.wave or 0) + 1,
            stand=record.stand,
            before=str(record.before) if record.before else "nothing",
            reason=record.reason or "",
        )
        for name, record in ((name, state.devices[name]) for name in state.exposed)
    ]
    # What needs a look comes first.
    return tuple(sorted(rows, key=lambda row: (row.stand == "committed", row.wave, row.name)))
