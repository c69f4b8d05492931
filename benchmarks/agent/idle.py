"""Processor time of a real agent that has nothing to do, reporting every ten seconds to a real broker.

Two agents beside each other: one whose folder of photos stays empty, and one with the default source, which is an
inference a second. The inference API listens in both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.agent.photo_release import install
from benchmarks.agent.running_agent import API_LISTENS, Started, processor_s, running_agent
from benchmarks.mosquitto import Mosquitto

SETTLE_S = 3.0
PERIOD_S = 10.0


@dataclass(frozen=True)
class Idle:
    """Shares of one core."""

    seconds: float
    nothing: float
    one_a_second: float


class IdleAgents:
    """Two agents whose processor time is read at the beginning and at the end."""

    def __init__(self, nothing: Started, one_a_second: Started) -> None:
        self._agents = (nothing, one_a_second)
        time.sleep(SETTLE_S)
        self._begun = time.monotonic()
        self._before = self._used()

    def _used(self) -> list[float]:
        return [processor_s(agent.pid) for agent in self._agents]

    def after(self, seconds: float) -> Idle:
        """What they used since the beginning, once it is `seconds` ago."""
        time.sleep(max(0.0, self._begun + seconds - time.monotonic()))
        used = self._used()
        passed = time.monotonic() - self._begun
        shares = [(now - before) / passed for now, before in zip(used, self._before, strict=True)]
        return Idle(passed, *shares)


@contextmanager
def idle_agents(folder: Path, broker: Mosquitto) -> Iterator[IdleAgents]:
    """Start the two."""
    one, none = folder / "one", folder / "none"
    (none / "photos").mkdir(parents=True)
    first = f"telemetry_period_s = {PERIOD_S}\n"
    tables = f'[broker]\nport = {broker.settings.port}\n[serving]\nsocket = "api"\n'
    install(one, first + tables)
    install(none, f'{first}{tables}[source]\nkind = "images"\npath = "photos"\n', device="two")
    with running_agent(one) as busy, running_agent(none, API_LISTENS) as idle:
        yield IdleAgents(idle, busy)
