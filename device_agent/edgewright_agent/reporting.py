"""`Reporting`: once a period, what was measured goes into the spool, and from there to the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as paho

from edgewright.telemetry import names
from edgewright.twin import topic
from edgewright_agent.config import AgentConfig
from edgewright_agent.exporter import Exporter
from edgewright_agent.sensing import Sensing
from edgewright_agent.spool import Spool
from edgewright_agent.uplink import Uplink
from edgewright_agent.vitals import Vitals

if TYPE_CHECKING:
    from edgewright_agent.sampling.threads import Sampling

PUMP_PERIOD_S = 1.0
"""Between two looks at whether the broker takes more of the spool."""


class Reporting:
    """Of one device. `run` is a thread's work; `finish` comes after it."""

    def __init__(
        self,
        config: AgentConfig,
        client: paho.Client,
        exporter: Exporter,
        sensing: Sensing,
        sampling: Sampling | None,
        *,
        root: Path = Path("/"),
    ) -> None:
        """`root` is where /proc begins. Raises the error family."""
        self._period_s = config.telemetry_period_s
        self._exporter, self._sensing, self._sampling = exporter, sensing, sampling
        self._vitals = Vitals(config.state_dir, root=root)
        self.spool = Spool(config.state_dir / "spool", config.telemetry_spool_bytes)
        self._uplink = Uplink(client, topic(config.fleet, config.device, "metrics"), self.spool)

    def run(self, stopping: threading.Event, live: Callable[[], None]) -> None:
        """Report until `stopping` is set, and call `live` once a second."""
        due = time.monotonic() + self._period_s
        while not stopping.wait(max(0.0, min(PUMP_PERIOD_S, due - time.monotonic()))):
            if time.monotonic() >= due:
                due += self._period_s
                self._send(last=False)
            self._uplink.pump()
            live()

    def finish(self, timeout_s: float) -> None:
        """Send what is left, and wait so long for the broker to take it."""
        self._send(last=True)
        self._uplink.finish(timeout_s)

    def _send(self, *, last: bool) -> None:
        self._sensing.report(time.monotonic(), last=last)
        self._vitals.record(self._exporter)
        if self._sampling is not None:
            self._sampling.report(self._exporter)
        if self.spool.dropped:
            self._exporter.set(names.REPORTS_DROPPED, "{report}", self.spool.dropped)
        self._uplink.send(self._exporter.collect())
