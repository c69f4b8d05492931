"""An `Updater` in the test's own process: real slots and releases, a loop that serves; the proof is not forked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewright.artifact.release import find_artifact
from edgewright.contract import from_mapping
from edgewright.errors import EdgewrightError
from edgewright.twin import DesiredState, ReleaseReference
from edgewright_agent.config import AgentConfig
from edgewright_agent.feed import Feed
from edgewright_agent.inference import serve
from edgewright_agent.prove import ProofLimits, ProofVerdict, judge
from edgewright_agent.proving_process import examine
from edgewright_agent.update import Updater
from edgewright_agent.watch import HeatReading
from edgewright_profiles import load_profile


class PowerCutError(BaseException):
    """Ends an update as a power cut would: nothing catches it, and what is in memory is gone."""


def prove_here(slot: Path, *, threads: int, limits: ProofLimits) -> ProofVerdict:
    """The proving process's own work, in this process: half a second less each time."""
    try:
        artifact = find_artifact(slot)
        answer = examine(artifact, threads=threads, runs=5, at_most_s=1.0, memory_bytes=None)
    except EdgewrightError as error:
        return ProofVerdict(False, str(error))
    return judge(ProofVerdict(answer["passed"], answer["detail"], answer["runtime"]), limits)


class Uncounted:
    """In the exporter's place."""

    def record(self, *_: Any, **__: Any) -> None: ...

    def record_error(self, *_: Any, **__: Any) -> None: ...


class Device:
    """An `Updater` over real slots with a loop that serves, in this process; `restart` is a new one."""

    def __init__(self, folder: Path, registry: Any, **settings: Any) -> None:
        self.registry = registry
        self.config = from_mapping(
            AgentConfig,
            {
                "fleet": "plant",
                "device": "line-3",
                "profile": "x86-64-gateway",
                "registry": registry.root,
                "state_dir": folder / "state",
                "watch_s": 0.001,
                "watch_inferences": 0,
                "download_retry_s": 0,
                "source": {"rate_hz": 500.0},
                **settings,
            },
            where="the test",
        )
        self.on_phase: Callable[[str], None] = lambda phase: None
        self.phases: list[str] = []
        self.exits: list[int] = []
        self.heat = HeatReading()
        self.overtaken = lambda: False
        self._stopping = threading.Event()
        self.restart()

    def restart(self) -> None:
        self._stopping.set()
        stopping = self._stopping = threading.Event()
        updater = self.updater = Updater(
            self.config,
            load_profile(self.config.profile),
            stopping=stopping,
            on_change=self._changed,
            read_heat=lambda: self.heat,
            leave=self.exits.append,
            overtaken=lambda: self.overtaken(),
        )
        updater.restore()
        loop = threading.Thread(
            target=lambda: serve(
                lambda: updater.served,
                Uncounted(),  # type: ignore[arg-type]
                Feed.of(self.config, lambda error: None),
                rate_hz=self.config.source.rate_hz,
                stopping=stopping,
            ),
            daemon=True,
        )
        loop.start()

    def stop(self) -> None:
        self._stopping.set()

    def take(self, release: ReleaseReference, rollout: str = "r", *, revert: bool = False) -> str:
        self.phases.clear()
        self.updater.take(DesiredState(release=release, rollout=rollout, revert=revert))
        return self.phase

    @property
    def phase(self) -> str:
        return self.updater.progress.phase

    @property
    def reason(self) -> str | None:
        return self.updater.progress.reason

    @property
    def version(self) -> str | None:
        served = self.updater.served
        return served.content.release.version if served else None

    def _changed(self) -> None:
        self.phases.append(self.phase)
        self.on_phase(self.phase)
