"""`Agent`: one device. It serves, takes updates and reports, each in a thread that the others do not wait for.

The inference loop runs in the caller's thread; updates in a worker that hands over a loaded model; metrics in
a timer; MQTT in paho's network thread; the inference API in threads of its own. Here is what they say to each
other and to the broker.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho

from edgewright.contract import from_json, to_json
from edgewright.errors import EdgewrightError
from edgewright.mqtt import KEEPALIVE_S, make_client
from edgewright.twin import DesiredState, DeviceStatus, Leaf, ReportedState, topic
from edgewright.version import __version__
from edgewright_agent.config import AgentConfig
from edgewright_agent.control import Document, answering
from edgewright_agent.exporter import Exporter
from edgewright_agent.feed import Feed
from edgewright_agent.heap import share_one_heap
from edgewright_agent.inference import serve
from edgewright_agent.reporting import Reporting
from edgewright_agent.sensing import Sensing
from edgewright_agent.status import summary, update_status
from edgewright_agent.supervisor import tell, watchdog_period_s
from edgewright_agent.update import Updater
from edgewright_profiles import load_profile

if TYPE_CHECKING:
    from edgewright_agent.sampling.threads import Sampling

log = logging.getLogger("edgewright.agent")
DEFERRAL_S = 1800.0
"""Seconds that one `edgewright agent defer` asks for: a long task, and shorter than a night."""
GOODBYE_S = 2.0
"""How long a stop waits for the broker to take the last message."""


class Agent:
    """One device of a fleet. `run` returns after `stop`."""

    def __init__(self, config: AgentConfig, *, root: Path = Path("/")) -> None:
        """`root` is where the power sensor's tree begins. Raises the error family."""
        self.config = config
        self._boot = uuid.uuid4().hex
        self._started_s = time.monotonic()
        self._stopping = threading.Event()
        profile = load_profile(config.profile)
        self._profile = profile.name
        self._updater = Updater(
            config,
            profile,
            stopping=self._stopping,
            on_change=self._report,
            read_heat=lambda: self._sensing.heat(),  # there before the first update
            overtaken=lambda: not self._wishes.empty(),
        )
        self._exporter = Exporter(
            fleet=config.fleet,
            device=config.device,
            profile=profile.name,
            boot=self._boot,
            encoding=config.telemetry_encoding,
        )
        self._sensing = Sensing(
            self._exporter, lambda: self._updater.served, profile, threads=config.threads, root=root
        )
        self._feed = Feed.of(config, self._exporter.record_feed_error)
        self._sampling: Sampling | None = None
        if config.sampling is not None:
            # Only here, as a device that keeps no samples pays nothing for it.
            from edgewright_agent.sampling.threads import Sampling

            self._sampling = Sampling(
                config,
                config.sampling,
                profile.name,
                lambda: self._updater.served.offers if self._updater.served else None,
                self._stopping,
            )
        self._wishes: queue.SimpleQueue[DesiredState | None] = queue.SimpleQueue()
        self._sequence = itertools.count()
        self._report_lock = threading.Lock()
        self._client = make_client(
            config.broker,
            f"{config.fleet}/{config.device}",
            will=(self._topic("status"), self._status(online=False)),
        )
        self._reporting = Reporting(
            config, self._client, self._exporter, self._sensing, self._sampling, root=root
        )
        self._sign_due_s = 0.0
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda *_: self._broker_is_away("cannot be reached")
        self._client.on_disconnect = lambda *_: self._broker_is_away("is gone")
        self._client.on_message = self._on_message
        self._broker_missed = False
        self._deferred_until_s: float | None = None

    def run(self) -> None:
        """Serve until `stop` is called. A broker that is down is waited for; the last good model serves."""
        share_one_heap()
        self._updater.restore()
        log.info(
            "Edgewright %s starts: %s", __version__, summary(self._updater.served, self._updater.progress)
        )
        self._client.connect_async(self.config.broker.host, self.config.broker.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()
        updates = threading.Thread(target=self._update_loop, name="updates", daemon=True)
        threads = [
            updates,
            threading.Thread(
                target=self._reporting.run,
                args=(self._stopping, lambda: self._give_sign(updates)),
                name="metrics",
                daemon=True,
            ),
            threading.Thread(target=self._sensing.run, args=(self._stopping,), name="sensors", daemon=True),
            threading.Thread(
                target=self._exporter.run, args=(self._stopping,), name="telemetry", daemon=True
            ),
            *(self._sampling.threads if self._sampling else ()),
        ]
        for thread in threads:
            thread.start()
        try:
            rate_hz = self.config.source.rate_hz
            with (
                self._inference_api(),
                answering(
                    self.config.state_dir,
                    {"status": self._describe, "rollback": self._roll_back, "defer": self._defer},
                ),
            ):
                tell("READY=1")
                serve(
                    lambda: self._updater.served,
                    self._exporter,
                    self._feed,
                    rate_hz=rate_hz,
                    stopping=self._stopping,
                )
        finally:
            tell("STOPPING=1")
            log.info("stops")
            self._stopping.set()
            self._wishes.put(None)
            for thread in threads:
                thread.join(timeout=GOODBYE_S)
            self._feed.close()
            self._say_goodbye()

    def _inference_api(self) -> contextlib.AbstractContextManager[object]:
        if self.config.serving is None:
            return contextlib.nullcontext()
        # Only here, as a device without the API saves 1.2 MB of memory.
        from edgewright_agent.serving.listeners import listening

        return listening(self.config.serving, lambda: self._updater.served, self._exporter)

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT end `run`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            # The interrupted thread may hold the event's own lock, so that another thread has to set it.
            signal.signal(number, lambda *_: threading.Thread(target=self.stop).start())

    def _say_goodbye(self) -> None:
        self._reporting.finish(GOODBYE_S)
        goodbye = self._publish("status", self._status(online=False))
        with contextlib.suppress(RuntimeError, ValueError):  # the broker is away: its last will speaks for us
            goodbye.wait_for_publish(timeout=GOODBYE_S if self._client.is_connected() else 0)
        self._broker_missed = True  # from here on its absence is no news
        self._client.disconnect()
        self._client.loop_stop()

    def _update_loop(self) -> None:
        while True:
            wish = self._wishes.get()
            # Only the newest wish counts; those before it were overtaken while an update ran.
            while not self._wishes.empty():
                wish = self._wishes.get()
            if wish is None or self._stopping.is_set():
                return
            self._updater.take(wish)

    def _give_sign(self, updates: threading.Thread) -> None:
        """Tell the supervisor that the agent lives, where it asks and that is so."""
        period_s = watchdog_period_s()
        if period_s is not None and time.monotonic() >= self._sign_due_s and self._lives(updates):
            self._sign_due_s = time.monotonic() + period_s
            tell("WATCHDOG=1", f"STATUS={summary(self._updater.served, self._updater.progress)}")

    def _lives(self, updates: threading.Thread) -> bool:
        """Whether a supervisor may hear from us: else it restarts the agent, and the last good model serves."""
        served = self._updater.served
        hangs = served is not None and served.tally.longest_running_s() > self.config.watch_hang_s
        return updates.is_alive() and not hangs

    def _describe(self) -> Document:
        """What `edgewright agent status` shows."""
        return {
            "agent": f"running, Edgewright {__version__}",
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "fleet": self.config.fleet,
            "device": self.config.device,
            "profile": self._profile,
            **update_status(self._updater.served, self._updater.progress),
            "broker": f"{self.config.broker}, {'connected' if self._client.is_connected() else 'not connected'}",
            "telemetry_waiting": len(self._reporting.spool),
            "telemetry_dropped": self._reporting.spool.dropped,
            **(self._sampling.describe() if self._sampling else {}),
        }

    def _roll_back(self) -> Document:
        self._updater.roll_back_to_previous()
        return self._describe()

    def _defer(self) -> Document:
        """In use: ask the fleet for a while without an update; it bounds how often that is granted."""
        self._deferred_until_s = round(time.time() + DEFERRAL_S, 3)
        self._report()
        return self._describe() | {"deferred_until_s": self._deferred_until_s}

    def _report(self) -> None:
        # Told to every new connection anyway; kept back until then, old reports would arrive after newer ones.
        if not self._client.is_connected():
            return
        with self._report_lock:  # sequence and order of sending must agree
            served, progress = self._updater.served, self._updater.progress
            report = ReportedState(
                device=self.config.device,
                profile=self._profile,
                boot=self._boot,
                sequence=next(self._sequence),
                phase=progress.phase,
                running=served.running if served else None,
                target=progress.target,
                rollout=progress.rollout,
                reason=progress.reason,
                labels=self.config.labels,
                time_zone=self.config.time_zone,
                deferred_until_s=self._deferred_until_s,
            )
            self._publish("reported", to_json(report))

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any = None
    ) -> None:
        if reason.is_failure:
            self._broker_is_away(f"refuses the connection ({reason})")
            return
        if self._broker_missed:
            log.warning("broker %s is there", self.config.broker)
        self._broker_missed = False
        client.subscribe(self._topic("desired"), qos=1)
        self._publish("status", self._status(online=True))
        self._report()

    def _broker_is_away(self, how: str) -> None:
        """Log once, not at every attempt: a device may be out of reach for weeks."""
        if not self._broker_missed:
            log.warning("broker %s %s; serving goes on, and so do the attempts", self.config.broker, how)
        self._broker_missed = True

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if not message.payload:  # a retained message that was cleared
            return
        try:
            self._wishes.put(from_json(DesiredState, bytes(message.payload), where=message.topic))
        except EdgewrightError as error:
            log.warning("%s", error)

    def _status(self, *, online: bool) -> bytes:
        return to_json(DeviceStatus(online=online, boot=self._boot, payloads=self._exporter.payloads))

    def _publish(self, leaf: Leaf, payload: bytes) -> paho.MQTTMessageInfo:
        return self._client.publish(self._topic(leaf), payload, qos=1, retain=True)

    def _topic(self, leaf: Leaf) -> str:
        return topic(self.config.fleet, self.config.device, leaf)
