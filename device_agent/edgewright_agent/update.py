"""Taking an update: from a desired state to a release that is kept, or to the one before with a reason.

This is the life cycle table put to work: `Updater` does the files and the proving, `lifecycle` says what comes
next. It knows no broker; whoever owns it is called at every change.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgewright.active_slot import FailedUpdate, SlotContent
from edgewright.artifact.layout import Layout
from edgewright.artifact.manifest import failed_checks
from edgewright.artifact.release import open_artifact, open_release_by_digest
from edgewright.errors import EdgewrightError, StorageError
from edgewright.twin import DesiredState, Phase, ReleaseReference
from edgewright_agent.config import AgentConfig
from edgewright_agent.inference import Served, Tally, load_served
from edgewright_agent.lifecycle import Event, step
from edgewright_agent.prove import prove_in_process_of_its_own
from edgewright_agent.slots import Slots
from edgewright_profiles import HardwareProfile

log = logging.getLogger("edgewright.agent")
MIN_WATCHED_INFERENCES = 5
"""Below this an error share says nothing, unless no inference at all succeeded."""
WATCH_POLL_S = 0.05


class UpdateFailedError(EdgewrightError):
    """An update cannot go on; the text is the reason that the fleet is shown."""


class _Stopping(Exception):  # noqa: N818 - not an error: the agent ends while an update runs
    pass


@dataclass(frozen=True)
class Progress:
    """Where the device is with what it was asked for; replaced as a whole, so that no reader sees half."""

    phase: Phase = "idle"
    target: ReleaseReference | None = None
    rollout: str | None = None
    reason: str | None = None


class Updater:
    """Owns the slots and decides what is served. `take` is for one thread; the attributes may be read by all."""

    def __init__(
        self,
        config: AgentConfig,
        profile: HardwareProfile,
        *,
        stopping: threading.Event,
        on_change: Callable[[], None],
    ) -> None:
        self._config = config
        self._profile = profile
        self._stopping = stopping
        self._on_change = on_change
        self._slots = Slots.open(config.state_dir)
        self.served: Served | None = None
        self.progress = Progress()

    def restore(self) -> None:
        """Serve the last good model after a start; where that is another than it was, say why."""
        undone = self._slots.state.watching
        self.served, reason = self._slots.start(lambda serving: load_served(serving, self._config))
        if undone is not None:
            self.progress = Progress("failed", undone.release, undone.rollout, reason)
        elif reason is not None:
            self.progress = Progress("failed", reason=reason)
        elif self.served is not None:
            self.progress = Progress("committed", self.served.content.release)
        if reason is not None:
            log.warning("%s", reason)

    def take(self, desired: DesiredState) -> None:
        """Bring the device to a desired state, or keep it where it is with the reason reported.

        A state that failed is not tried again until the fleet asks for it by another rollout: a broker
        delivers the same retained message at every reconnection.
        """
        self.progress = replace(self.progress, target=desired.release, rollout=desired.rollout)
        before, failure = self.served, self._slots.state.failure
        if before is not None and before.content.release.digest == desired.release.digest:
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
            except EdgewrightError as error:
                self._fail(desired, before, str(error))
            except Exception as error:  # noqa: BLE001 - no update may end the thread that takes the next one
                self._fail(desired, before, f"error in the agent: {type(error).__name__}: {error}")

    def _update(self, desired: DesiredState) -> None:
        content = self._download(desired)
        self._proceed("fetched")
        serving = self._slots.verify(content)
        self._proceed("verified")
        self._prove(content)
        served = load_served(serving, self._config)
        self._proceed("proved")
        self._slots.switch(content, desired)
        self.served = served
        self._proceed("switched")
        self._watch(served.tally)
        self._slots.commit()
        self._advance("kept")

    def _download(self, desired: DesiredState) -> SlotContent:
        registry = Layout.open(self._config.registry)
        release = open_release_by_digest(registry, str(desired.release), desired.release.digest)
        artifact = open_artifact(registry, release.choose(self._profile.name, self._profile.formats))
        manifest = artifact.manifest
        found = f"{manifest.name}:{manifest.version} for {manifest.profile}"
        wanted = f"{desired.release} for {self._profile.name}"
        if found != wanted:
            raise UpdateFailedError(f"the release holds {found}, not {wanted}")
        failed = failed_checks(manifest)
        if failed and not self._config.accept_failed_artifacts:
            raise UpdateFailedError(f"the artifact failed its gate: {failed}")
        return self._slots.install(artifact, desired.release)

    def _prove(self, content: SlotContent) -> None:
        verdict = prove_in_process_of_its_own(
            self._slots.folder(content), threads=self._config.threads, timeout_s=self._config.prove_timeout_s
        )
        if not verdict.passed:
            raise UpdateFailedError(f"golden check: {verdict.detail}")
        log.info("%s proved on %s: %s", content.release, verdict.runtime, verdict.detail)

    def _watch(self, tally: Tally) -> None:
        """Wait out the watching time. Raises `UpdateFailedError` as soon as too many inferences failed."""
        limit = self._config.watch_max_error_share
        end = time.monotonic() + self._config.watch_s
        over = False
        while not over:
            if self._stopping.wait(WATCH_POLL_S):
                raise _Stopping
            over = time.monotonic() >= end
            errors, inferences = tally.errors, tally.inferences
            if watched_too_many_errors(errors, inferences, limit, over=over):
                seen = f"{errors} of {inferences} inferences failed while watching"
                raise UpdateFailedError(f"{seen}, more than {limit:.0%}")

    def _fail(self, desired: DesiredState, before: Served | None, reason: str) -> None:
        log.warning("update to %s failed: %s", desired.release, reason)
        self._advance("failed", reason)
        self._roll_back(before, FailedUpdate(desired=desired, reason=reason))
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


def watched_too_many_errors(errors: int, inferences: int, limit: float, *, over: bool) -> bool:
    """Whether a watched release has failed: too large a share, or nothing but errors when the time is over."""
    if inferences >= MIN_WATCHED_INFERENCES:
        return errors > limit * inferences
    return over and errors > 0 and errors >= inferences


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
