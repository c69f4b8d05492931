"""Taking an update: from a desired state to a release that is kept, or to the one before with a reason.

This is the life cycle table put to work: `Updater` does the files and the proving, `lifecycle` says what comes
next. It knows no broker; whoever owns it is called at every change.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from edgewright.active_slot import FailedUpdate, SlotContent
from edgewright.artifact.layout import is_away
from edgewright.errors import EdgewrightError, StorageError
from edgewright.twin import GOLDEN_REFUSAL, DesiredState, Phase, ReleaseReference
from edgewright_agent.config import AgentConfig
from edgewright_agent.download import download
from edgewright_agent.inference import Served, load_served
from edgewright_agent.lifecycle import RESTING, Event, step
from edgewright_agent.prove import limits_for, prove_in_process_of_its_own
from edgewright_agent.slots import Slots
from edgewright_agent.watch import (
    HeatWatch,
    ReadHeat,
    error_reason,
    exits_when_wedged,
    hang_reason,
    latency_reason,
    no_heat_sensor,
)
from edgewright_profiles import HardwareProfile

log = logging.getLogger("edgewright.agent")
WATCH_POLL_S = 0.05
HANGS = 70
"""Exit code of an agent whose model hangs (sysexits.h, EX_SOFTWARE): whoever supervises it starts it again."""
LAST_WORDS_S = 1.0
"""Before that exit, for the broker to hear why."""
BY_HAND = "rolled back by hand"


class UpdateFailedError(EdgewrightError):
    """An update cannot go on; the text is the reason that the fleet is shown."""


class _HangingError(UpdateFailedError):
    """A thread of this process is lost in the model's native code, and only a new process is rid of it."""


class _Stopping(Exception):  # noqa: N818 - not an error: the agent ends while an update runs
    pass


class _Overtaken(Exception):  # noqa: N818 - not an error: a newer wish came while the registry is away
    pass


@dataclass(frozen=True)
class Progress:
    """Where the device is with what it was asked for; replaced as a whole, so that no reader sees half."""

    phase: Phase = "idle"
    target: ReleaseReference | None = None
    rollout: str | None = None
    reason: str | None = None


class Updater:
    """Owns the slots and decides what is served. The attributes may be read by all threads.

    `read_heat` looks at the device's sensors; `leave` ends the process at once, for a supervisor to start it anew;
    `overtaken` says whether a newer wish waits, which ends an attempt to reach the registry.
    """

    def __init__(
        self,
        config: AgentConfig,
        profile: HardwareProfile,
        *,
        stopping: threading.Event,
        on_change: Callable[[], None],
        read_heat: ReadHeat = no_heat_sensor,
        leave: Callable[[int], None] = os._exit,
        overtaken: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._profile = profile
        self._stopping = stopping
        self._on_change = on_change
        self._read_heat = read_heat
        self._leave = leave
        self._overtaken = overtaken
        self._busy = threading.Lock()
        self._undo: str | None = None
        self._slots = Slots.open(config.state_dir)
        self.served: Served | None = None
        self.progress = Progress()

    def restore(self) -> None:
        """Serve the last good model after a start; where that is another than it was, say why."""
        self.served, reason = self._slots.start(lambda serving: load_served(serving, self._config))
        failure = self._slots.state.failure
        if reason is not None:
            log.warning("%s", reason)
        elif failure is not None:
            log.info("the update to %s failed before: %s", failure.desired.release, failure.reason)
        if failure is not None:
            reason = reason or failure.reason
            self.progress = Progress("failed", failure.desired.release, failure.desired.rollout, reason)
        elif reason is not None:
            self.progress = Progress("failed", reason=reason)
        elif self.served is not None:
            self.progress = Progress("committed", self.served.content.release)

    def take(self, desired: DesiredState) -> None:
        """Bring the device to a desired state, or keep it where it is with the reason reported.

        A state that failed is not tried again until the fleet asks for it by another rollout: a broker
        delivers the same retained message at every reconnection.
        """
        with self._busy:
            self._take(desired)

    def roll_back_to_previous(self, reason: str = BY_HAND) -> None:
        """Serve the release before, durably; the same desired state, delivered again, does not undo that.

        A release that is still watched is given up. Raises `EdgewrightError`, with all as it was, where an update
        has not switched yet, where there is nothing to go back to or it is corrupt, or the disk refuses it.
        """
        phase = self.progress.phase
        if phase not in (*RESTING, "watching"):
            raise UpdateFailedError(f"an update is {phase}; wait for its end")
        if phase == "watching":
            self._undo = reason
        with self._busy:
            self._undo = None
            if phase == "watching" and self.progress.phase == "failed":
                return
            active = self._slots.state.active
            before = load_served(self._slots.verify(self._slots.previous()), self._config)
            self._slots.go_back(reason)
            if active is not None:
                self.progress = replace(self.progress, target=active.release)
            self._advance("undone", reason)
            self.served = before
            self._advance("restored", reason)

    def _take(self, desired: DesiredState) -> None:
        self.progress = replace(self.progress, target=desired.release, rollout=desired.rollout)
        before, failure = self.served, self._slots.state.failure
        if before is not None and before.content.release.digest == desired.release.digest:
            with suppress(StorageError):  # of use for a roll back by hand alone
                self._slots.note(desired)
            self._advance("satisfied")
        elif failure is not None and failure.desired == desired:
            self._advance("refused", failure.reason)
        elif before is not None and not desired.revert and is_older(desired.release, before.content.release):
            running = before.content.release
            self._advance("refused", f"{desired.release} is older than {running} and no revert was asked for")
        else:
            self._advance("desired")
            try:
                self._update(desired)
            except _Stopping:
                self._roll_back(before, None)
            except _Overtaken:
                return
            except EdgewrightError as error:
                # A registry that is away says nothing of the release: the same wish, delivered anew, is taken.
                away = is_away(error, self._config.registry)
                self._fail(None if away else desired, before, str(error))
                if isinstance(error, _HangingError):
                    log.error("restarting: %s", error)
                    time.sleep(LAST_WORDS_S)
                    self._leave(HANGS)
            except Exception as error:  # noqa: BLE001 - no update may end the thread that takes the next one
                self._fail(desired, before, f"error in the agent: {type(error).__name__}: {error}")

    def _update(self, desired: DesiredState) -> None:
        heat = HeatWatch(self._read_heat, self._config.watch_max_heating_c)
        content = download(desired.release, self._config, self._profile, self._slots, self._away)
        self._proceed("fetched")
        self._slots.verify(content)
        self._proceed("verified")
        self._prove(content)
        self._proceed("proved")
        before = self.served
        self._slots.switch(content, desired)
        # Loaded once the pointer says that it is watched: should that take the agent down, a start goes back.
        with exits_when_wedged(self._config.prove_timeout_s):
            served = load_served(self._slots.verify(content), self._config)
        self.served = served
        self._proceed("switched")
        self._watch(served, before, heat)
        self._slots.commit()
        self._advance("kept")

    def _away(self, problem: str, wait_s: float) -> None:
        """The registry is away: say so, and wait; a newer wish ends the wait."""
        self._advance("interrupted", f"{problem}; it is tried again")
        end = time.monotonic() + wait_s
        while (left_s := end - time.monotonic()) > 0:
            if self._stopping.wait(min(left_s, WATCH_POLL_S)):
                raise _Stopping
            if self._overtaken():
                raise _Overtaken

    def _prove(self, content: SlotContent) -> None:
        verdict = prove_in_process_of_its_own(
            self._slots.folder(content),
            threads=self._config.threads,
            limits=limits_for(self._config, self._profile),
        )
        if not verdict.passed:
            raise UpdateFailedError(f"{GOLDEN_REFUSAL}: {verdict.detail}")
        log.info("%s proved on %s: %s", content.release, verdict.runtime, verdict.detail)

    def _watch(self, served: Served, before: Served | None, heat: HeatWatch) -> None:
        """Wait out the watching time and count. Raises `UpdateFailedError` as soon as there is a reason to."""
        config, tally = self._config, served.tally
        start = time.monotonic()
        over = False
        with exits_when_wedged(2 * config.watch_hang_s) as alive:
            while not over:
                alive()
                if self._stopping.wait(WATCH_POLL_S):
                    raise _Stopping
                watched_s, errors, inferences = time.monotonic() - start, tally.errors, tally.inferences
                over = watched_s >= config.watch_s and inferences >= config.watch_inferences
                over = over or watched_s >= max(config.watch_s, config.watch_max_s)
                if reason := hang_reason(tally.longest_running_s(), config.watch_hang_s):
                    raise _HangingError(reason)
                limit = config.watch_max_error_share
                reason = error_reason(errors, inferences, limit, over=over) or heat.reason() or self._undo
                if reason is not None:
                    raise UpdateFailedError(reason)
        budget_s = limits_for(config, self._profile).p99_s
        known = before.tally.latencies() if before is not None and same_model(before, served) else []
        slow = config.watch_max_slowdown
        if reason := latency_reason(known, tally.latencies(), max_slowdown=slow, budget_s=budget_s):
            raise UpdateFailedError(reason)

    def _fail(self, desired: DesiredState | None, before: Served | None, reason: str) -> None:
        """Go back; a `desired` state is remembered as failed, and not tried again."""
        log.warning("update to %s failed: %s", self.progress.target, reason)
        self._advance("failed", reason)
        self._roll_back(before, FailedUpdate(desired=desired, reason=reason) if desired else None)
        if self.progress.phase == "rolling-back":
            self._advance("restored", reason)

    def _roll_back(self, before: Served | None, failure: FailedUpdate | None) -> None:
        self.served = before
        try:
            self._slots.roll_back(failure)
        except StorageError as error:
            log.warning("the pointer to the slots stays as it is: %s", error)

    def _proceed(self, event: Event) -> None:
        if self._stopping.is_set():
            raise _Stopping
        self._advance(event)

    def _advance(self, event: Event, reason: str | None = None) -> None:
        self.progress = replace(self.progress, phase=step(self.progress.phase, event), reason=reason)
        log.info("%s: %s", self.progress.target, self.progress.phase)
        self._on_change()


def same_model(one: Served, other: Served) -> bool:
    """Whether two releases are versions of one model, so that their latencies compare."""
    return one.content.release.name == other.content.release.name


def is_older(release: ReleaseReference, than: ReleaseReference) -> bool:
    """Whether a version of the same model is older by its leading numbers: 1.9 before 1.10, 1.0 as 1.0.0.

    What follows the numbers has no order that holds for everyone, and so never makes a version older.
    """
    if release.name != than.name:
        return False
    numbers, others = _numbers(release.version), _numbers(than.version)
    return bool(numbers and others) and numbers < others


def _numbers(version: str) -> list[int]:
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    numbers = [int(part) for part in match[1].split(".")] if match else []
    while numbers[1:] and numbers[-1] == 0:
        numbers.pop()
    return numbers
