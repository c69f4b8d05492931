"""`Agent`: one device. It serves, takes updates and reports, each in a thread that the others do not wait for.

The inference loop runs in the caller's thread; updates in a worker that hands over a loaded model; metrics in
a timer; MQTT in paho's network thread.
"""

from __future__ import annotations

import itertools
import logging
import queue
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from edgewright.artifact.layout import Layout
from edgewright.artifact.release import open_artifact, open_release_by_digest
from edgewright.contract import from_json, to_json
from edgewright.errors import EdgewrightError
from edgewright.mqtt import make_client
from edgewright.runtime.model import Model, load_artifact
from edgewright.twin import (
    DesiredState,
    DeviceStatus,
    Phase,
    ReleaseReference,
    ReportedState,
    RunningRelease,
    topic,
)
from edgewright_agent.config import AgentConfig
from edgewright_agent.exporter import Exporter, ModelAttributes
from edgewright_agent.lifecycle import Event, step
from edgewright_agent.power import find_sensor
from edgewright_agent.prove import prove_in_own_process
from edgewright_agent.slots import FailedUpdate, Serving, SlotContent, Slots
from edgewright_agent.sources import RawInputs, open_source
from edgewright_profiles import HardwareProfile, load_profile

log = logging.getLogger("edgewright.agent")
MIN_WATCHED_INFERENCES = 5
"""Below this an error share says nothing; watching goes on until there are as many, or the time is over."""
ENERGY_SAMPLE_S = 1.0


class UpdateFailedError(EdgewrightError):
    """An update cannot go on; the text is the reason that the fleet is shown."""


@dataclass(frozen=True)
class Served:
    """A loaded model with everything that the inference loop needs."""

    content: SlotContent
    model: Model
    inputs: Iterator[RawInputs]
    attributes: ModelAttributes


@dataclass
class Watch:
    """What was seen of a release while it was watched; the inference loop counts, the worker reads."""

    inferences: int = 0
    errors: int = 0


class Agent:
    """One device of a fleet. `run` returns after `stop`."""

    def __init__(self, config: AgentConfig, *, root: Path = Path("/")) -> None:
        self.config = config
        self._profile: HardwareProfile = load_profile(config.profile)
        self._boot = uuid.uuid4().hex[:12]
        self._slots = Slots.open(config.state_dir)
        self._sensor = find_sensor(root)
        self._exporter = Exporter(
            fleet=config.fleet, device=config.device, profile=self._profile.name, boot=self._boot
        )
        self._stopping = threading.Event()
        self._wishes: queue.SimpleQueue[DesiredState | None] = queue.SimpleQueue()
        self._served: Served | None = None
        self._watch = Watch()
        self._phase: Phase = "idle"
        self._target: ReleaseReference | None = None
        self._rollout: str | None = None
        self._reason: str | None = None
        self._sequence = itertools.count()
        self._client = make_client(
            config.broker,
            f"{config.fleet}/{config.device}",
            will=(self._topic("status"), to_json(DeviceStatus(online=False, boot=self._boot))),
        )
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda *_: log.warning("broker %s cannot be reached", config.broker)
        self._client.on_message = self._on_message

    def run(self) -> None:
        """Serve until `stop` is called. A broker that is down is waited for; the last good model serves."""
        self._restore()
        self._client.connect_async(self.config.broker.host, self.config.broker.port, keepalive=30)
        self._client.loop_start()
        threads = [
            threading.Thread(target=self._update_loop, name="updates", daemon=True),
            threading.Thread(target=self._report_loop, name="reports", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            self._inference_loop()
        finally:
            self._stopping.set()
            self._wishes.put(None)
            for thread in threads:
                thread.join(timeout=5)
            self._publish("metrics", self._exporter.collect(), retain=False)
            gone = self._publish("status", to_json(DeviceStatus(online=False, boot=self._boot)))
            if self._client.is_connected():
                gone.wait_for_publish(timeout=2)
            self._client.disconnect()
            self._client.loop_stop()
            self._exporter.close()

    def stop(self) -> None:
        """Let `run` end; safe from a signal handler."""
        self._stopping.set()

    def _restore(self) -> None:
        serving, reason = self._slots.start()
        if serving is not None:
            try:
                self._served = self._load(serving)
                self._phase = "committed"
            except EdgewrightError as error:
                reason = f"the last good model cannot be loaded: {error}"
        if reason is not None:
            log.warning("%s", reason)
            self._reason = reason

    def _load(self, serving: Serving) -> Served:
        model = load_artifact(serving.artifact, threads=self.config.threads)
        inputs = open_source(self.config.source, model, serving.artifact)
        return Served(serving.content, model, inputs, ModelAttributes.of(serving.content.release))

    def _inference_loop(self) -> None:
        period = 1.0 / self.config.source.rate_hz
        due = time.monotonic()
        while not self._stopping.is_set():
            # Read once: the worker may hand over another model at any moment, and this inference keeps its own.
            served, watch = self._served, self._watch
            if served is not None:
                self._infer(served, watch)
            due = max(due + period, time.monotonic() - 1.0)
            self._stopping.wait(max(0.0, due - time.monotonic()))

    def _infer(self, served: Served, watch: Watch) -> None:
        inputs = next(served.inputs)
        watch.inferences += 1
        start = time.perf_counter()
        try:
            served.model.run_raw(inputs)
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is one failed inference
            watch.errors += 1
            self._exporter.record_error(served.attributes, error)
        else:
            self._exporter.record(served.attributes, time.perf_counter() - start)

    def _update_loop(self) -> None:
        while True:
            wish = self._wishes.get()
            # Only the newest wish counts; those before it were overtaken while an update ran.
            while not self._wishes.empty():
                wish = self._wishes.get()
            if wish is None or self._stopping.is_set():
                return
            self._take(wish)

    def _take(self, wish: DesiredState) -> None:
        """Bring the device to a desired state, or keep it where it is with the reason reported."""
        self._target, self._rollout = wish.release, wish.rollout
        running = self._slots.state.active
        if self._served is not None and running is not None and running.release.digest == wish.release.digest:
            self._phase, self._reason = "committed", None
            self._report()
            return
        known = self._slots.state.failure
        if known is not None and known == self._failure(wish, known.reason):
            self._phase, self._reason = "failed", known.reason
            self._report()
            return
        self._reason = None
        try:
            self._advance("desired")
            self._update(wish)
        except EdgewrightError as error:
            self._fail(wish, str(error))
        except Exception as error:
            log.exception("an update ended in an error of the agent's own")
            self._fail(wish, f"agent error: {type(error).__name__}: {error}")

    def _update(self, wish: DesiredState) -> None:
        running = self._slots.state.active
        if running is not None and not wish.revert and is_older(wish.release, running.release):
            raise UpdateFailedError(
                f"{wish.release} is older than {running.release} and no revert was asked for"
            )
        registry = Layout.open(self.config.registry)
        release = open_release_by_digest(registry, str(wish.release), wish.release.digest)
        artifact = open_artifact(registry, release.choose(self._profile.name, self._profile.formats))
        content = self._slots.install(artifact, wish.release)
        self._advance("fetched")
        serving = self._slots.verify(content)
        self._advance("verified")
        verdict = prove_in_own_process(
            self._slots.folder(content), threads=self.config.threads, timeout_s=self.config.prove_timeout_s
        )
        if not verdict.passed:
            raise UpdateFailedError(f"golden check: {verdict.detail}")
        log.info("%s proved: %s", wish.release, verdict.detail)
        served = self._load(serving)
        self._advance("proved")
        before = self._served
        self._slots.switch(content)
        self._watch, self._served = Watch(), served
        self._advance("switched")
        try:
            self._watch_release(self._watch)
        except UpdateFailedError:
            self._advance("failed")
            self._slots.roll_back()
            self._served = before
            raise
        self._slots.commit()
        self._advance("kept")

    def _watch_release(self, watch: Watch) -> None:
        """Wait out the watching time. Raises `UpdateFailedError` as soon as too many inferences failed."""
        limit = self.config.watch_max_error_share
        end = time.monotonic() + self.config.watch_s
        while time.monotonic() < end and not self._stopping.wait(0.05):
            if watch.inferences >= MIN_WATCHED_INFERENCES and watch.errors > limit * watch.inferences:
                seen = f"{watch.errors} of {watch.inferences} inferences failed while watching"
                raise UpdateFailedError(f"{seen}, more than {limit:.0%}")
        if self._stopping.is_set():
            raise UpdateFailedError("the agent was stopped while the new release was still watched")

    def _fail(self, wish: DesiredState, reason: str) -> None:
        log.warning("update to %s failed: %s", wish.release, reason)
        self._reason = reason
        try:
            self._slots.remember_failure(self._failure(wish, reason))
        except EdgewrightError as error:
            log.warning("the failure cannot be kept: %s", error)
        self._advance("restored" if self._phase == "rolling-back" else "failed")

    @staticmethod
    def _failure(wish: DesiredState, reason: str) -> FailedUpdate:
        return FailedUpdate(
            release=wish.release.digest, rollout=wish.rollout, revert=wish.revert, reason=reason
        )

    def _advance(self, event: Event) -> None:
        self._phase = step(self._phase, event)
        log.info("%s: %s", self._target, self._phase)
        self._report()

    def _report(self) -> None:
        served = self._served
        running = None
        if served is not None:
            running = RunningRelease(
                release=served.content.release, artifact=served.content.artifact, runtime=served.model.runtime
            )
        report = ReportedState(
            device=self.config.device,
            profile=self._profile.name,
            boot=self._boot,
            sequence=next(self._sequence),
            phase=self._phase,
            running=running,
            target=self._target,
            rollout=self._rollout,
            reason=self._reason,
        )
        self._publish("reported", to_json(report))

    def _report_loop(self) -> None:
        due = time.monotonic() + self.config.telemetry_period_s
        while not self._stopping.wait(min(ENERGY_SAMPLE_S, max(0.0, due - time.monotonic()))):
            if self._sensor is not None:
                self._exporter.record_energy(self._sensor.energy_j(time.monotonic()), self._sensor.name)
            if time.monotonic() >= due:
                due += self.config.telemetry_period_s
                self._publish("metrics", self._exporter.collect(), retain=False)

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any = None
    ) -> None:
        if reason.is_failure:
            log.warning("broker %s refuses the connection: %s", self.config.broker, reason)
            return
        client.subscribe(self._topic("desired"), qos=1)
        self._publish("status", to_json(DeviceStatus(online=True, boot=self._boot)))
        self._report()

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if not message.payload:  # a retained message that was cleared
            return
        try:
            self._wishes.put(from_json(DesiredState, bytes(message.payload), where=message.topic))
        except EdgewrightError as error:
            log.warning("%s", error)

    def _publish(self, leaf: Any, payload: bytes, *, retain: bool = True) -> paho.MQTTMessageInfo:
        return self._client.publish(self._topic(leaf), payload, qos=1, retain=retain)

    def _topic(self, leaf: Any) -> str:
        return topic(self.config.fleet, self.config.device, leaf)


def is_older(release: ReleaseReference, than: ReleaseReference) -> bool:
    """Whether a version of the same model is older, by its numbers in order; 1.10 is newer than 1.9."""
    if release.name != than.name:
        return False

    def numbers(version: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", version)]

    return numbers(release.version) < numbers(than.version)
