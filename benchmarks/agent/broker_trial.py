"""The broker is killed at the very moment that a device enters a phase of an update, and comes back empty.

Here the device is the whole `Agent`, with its threads and its connection; the broker is a real mosquitto.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho

from benchmarks.agent.faulty_device import config_for
from benchmarks.mosquitto import DEADLINE_S, Mosquitto
from edgewright.contract import from_json, to_json
from edgewright.mqtt import BrokerSettings, connect, make_client
from edgewright.twin import DesiredState, ReportedState, topic
from edgewright_agent.agent import Agent
from edgewright_agent.feed_config import SourceConfig

PHASES = ("downloading", "verifying", "proving", "switching", "watching", "committed")


class _Agent(Agent):
    """Kills the broker when it is about to report a phase."""

    broker_pid: int
    phase: str

    def _report(self) -> None:
        if self._updater.progress.phase == self.phase and self.broker_pid:
            os.kill(self.broker_pid, signal.SIGKILL)
            self.broker_pid = 0
        super()._report()


def lose_the_broker(state: Path, registry: Path, desired: DesiredState, phase: str) -> str | None:
    """Let a device update while its broker is killed in `phase`; a problem, if there is one.

    The device is killed once it has reported that it keeps the release to the broker that came back.
    """
    broker = Mosquitto(state.parent)
    device = os.fork()
    if device == 0:
        try:
            run_device(state, registry, broker, phase)
        finally:
            os._exit(3)
    try:
        _fleet(broker.settings, desired, until_committed=False)
        try:
            broker.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            return f"the device never came to {phase}"
        time.sleep(0.1)
        broker.start()
        if not _fleet(broker.settings, desired, until_committed=True):
            return f"no word of the release being kept within {DEADLINE_S:g} s after the broker was back"
        if os.waitpid(device, os.WNOHANG)[0]:
            return "the device ended without its broker"
    finally:
        broker.process.kill()
        broker.process.wait()
        os.kill(device, signal.SIGKILL)
        os.waitpid(device, 0)
    return None


def run_device(state: Path, registry: Path, broker: Mosquitto, phase: str) -> None:
    """The agent, until it is killed. It proves in a new process: of its many threads one may hold a lock that a
    fork would wait for as long as it may."""
    logging.getLogger("edgewright.agent").setLevel(logging.CRITICAL)
    changes = {"broker": broker.settings, "source": SourceConfig(rate_hz=200.0)}
    agent = _Agent(config_for(state, registry).model_copy(update=changes))
    agent.broker_pid, agent.phase = broker.process.pid, phase
    agent.run()


def _fleet(broker: BrokerSettings, desired: DesiredState, *, until_committed: bool) -> bool:
    """Ask for a release, and wait until the device reports that it keeps it."""
    kept = threading.Event()

    def on_message(client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        report = from_json(ReportedState, bytes(message.payload), where=message.topic)
        if report.phase == "committed" and report.running and report.running.release == desired.release:
            kept.set()

    client = make_client(broker, "fleet")
    client.on_message = on_message
    connect(client, broker)
    client.subscribe(topic("bench", "device", "reported"), qos=1)
    sent = client.publish(topic("bench", "device", "desired"), to_json(desired), qos=1, retain=True)
    if until_committed:
        kept.wait(DEADLINE_S)
    else:
        # The broker may be killed before it has answered.
        sent.wait_for_publish(2.0)
    client.disconnect()
    client.loop_stop()
    return kept.is_set()
