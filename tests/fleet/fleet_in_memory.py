"""A fleet in memory that speaks the device protocol, in any order and with repeats, and a rollout over it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.reading import Reading, reading_of
from edgewright.telemetry.window import TelemetryWindow
from edgewright.twin import DesiredState, ReleaseReference, ReportedState, RunningRelease
from edgewright_fleet.rollout.engine import advance
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.records import DeviceRecord
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import (
    RESTING,
    Decision,
    DeviceEvent,
    DevicePresence,
    DeviceReported,
    RolloutState,
    SetDesired,
    Tick,
    WindowArrived,
)
from edgewright_fleet.rollout.table import TABLE
from edgewright_fleet.rollout.waves import plan_waves

OLD = ReleaseReference(name="net", version="1.0.0", digest="sha256:" + "0" * 64)
NEW = ReleaseReference(name="net", version="1.1.0", digest="sha256:" + "1" * 64)
GATES = Gates(min_inferences=10, window_s=5.0, timeout_s=60.0)


@dataclass
class Device:
    """One device in memory: it takes `install_s` ticks to an answer, and measures once a tick."""

    name: str
    running: ReleaseReference | None = OLD
    install_s: int = 2
    broken: bool = False
    slow: bool = False
    idle: bool = False
    silent: bool = False
    offline_from: int = 10**9
    offline_until: int = 10**9
    wish: DesiredState | None = None
    left: int = -1
    sequence: int = 0
    payloads: int = 0
    boot: str = "b0"
    zone: str | None = None
    deferred_until_s: float | None = None

    def online(self, now: int) -> bool:
        return not self.offline_from <= now < self.offline_until

    @property
    def mid_update(self) -> bool:
        return self.left >= 0

    def desire(self, wish: DesiredState | None) -> None:
        if wish is not None and wish != self.wish:
            self.wish, self.left = wish, (0 if self.runs(wish) else self.install_s)

    def runs(self, wish: DesiredState) -> bool:
        return self.running is not None and self.running.digest == wish.release.digest

    def report(self, phase: str, reason: str | None = None) -> DeviceReported:
        self.sequence += 1
        running = None
        if self.running is not None:
            running = RunningRelease(release=self.running, artifact=self.running.digest, runtime="r 1")
        return DeviceReported(
            ReportedState(
                device=self.name,
                profile="p",
                boot=self.boot,
                sequence=self.sequence,
                phase=phase,  # type: ignore[arg-type]
                running=running,
                target=self.wish.release if self.wish else None,
                rollout=self.wish.rollout if self.wish else None,
                reason=reason,
                time_zone=self.zone,
                deferred_until_s=self.deferred_until_s,
            )
        )

    def step(self) -> list[DeviceEvent]:
        """What it says in one second."""
        said: list[DeviceEvent] = []
        if self.left > 0:
            self.left -= 1
            said.append(self.report("downloading"))
        elif self.left == 0 and not self.silent and self.wish is not None:
            self.left = -1
            if self.broken and self.wish.release == NEW:
                said.append(self.report("failed", "golden check"))
            else:
                self.running = self.wish.release
                said.append(self.report("committed"))
        if self.running is not None and not self.idle:
            index = 40 if self.slow and self.running == NEW else 0
            said.append(WindowArrived(window(self.name, self.running, index, sequence=self.payloads)))
            self.payloads += 1
        return said


def window(
    device: str, release: ReleaseReference, index: int, *, sequence: int = 0, errors: int = 0
) -> Reading:
    made = TelemetryWindow(
        fleet="f",
        device=device,
        profile="p",
        boot="b0",
        sequence=sequence,
        start_ns=0,
        end_ns=1,
        model=release.name,
        version=release.version,
        release=release.digest,
        latency=ExponentialHistogram(scale=3, buckets={index: 5}),
        errors=errors,
    )
    return reading_of(made)


@dataclass
class World:
    """A rollout and its fleet; a second a turn."""

    spec: RolloutSpec
    devices: dict[str, Device]
    random: random.Random
    repeats: bool = True
    now: int = 0
    decisions: list[Decision] = field(default_factory=list)
    sent: list[tuple[int, SetDesired]] = field(default_factory=list)
    stopped_at: int | None = None
    state: RolloutState = field(init=False)

    def __post_init__(self) -> None:
        offline = [d.name for d in self.devices.values() if not d.online(0)]
        waves = plan_waves(self.spec, [(name, "p") for name in self.devices], offline)
        records = {name: DeviceRecord(profile="p") for wave in waves for name in wave}
        self.state = RolloutState(name="r", release=NEW, waves=waves, devices=records, since_s=0.0)
        # What is retained comes first, whether or not the device is there.
        for device in self.devices.values():
            self.tell(device.report("committed" if device.running else "idle"))
            self.tell(DevicePresence(device.name, device.online(0), device.boot))

    def tell(self, event: object) -> None:
        before = self.state
        self.state, actions = advance(before, self.spec, event, float(self.now))  # type: ignore[arg-type]
        assert self.state.phase == before.phase or self.state.phase in TABLE[before.phase].next
        if self.state.phase == "reverting" and self.stopped_at is None:
            self.stopped_at = len(self.sent)
        for action in actions:
            if isinstance(action, Decision):
                assert action.sentence
                self.decisions.append(action)
            else:
                self.sent.append((self.now, action))
                self.devices[action.device].desire(action.desired)

    def second(self) -> None:
        self.now += 1
        said: list[DeviceEvent] = []
        for device in self.devices.values():
            if device.online(self.now) != device.online(self.now - 1):
                said.append(DevicePresence(device.name, device.online(self.now), device.boot))
            if device.online(self.now):
                said += device.step()
        if self.repeats:
            again = [event for event in said if not isinstance(event, DevicePresence)]
            said += [event for event in again if self.random.random() < 0.3]
        self.random.shuffle(said)
        for event in said:
            self.tell(event)
        self.tell(Tick())

    def run(self, seconds: int = 2000) -> None:
        while self.state.phase not in RESTING and self.now < seconds:
            self.second()


def world(*devices: Device, seed: int = 0, **changes: object) -> World:
    spec = RolloutSpec.model_validate(
        {"name": "r", "fleet": "f", "release": "net:1.1.0", "registry": "r", "gates": GATES, **changes}
    )
    return World(spec, {device.name: device for device in devices}, random.Random(seed))


def fleet(count: int, **behaviour: object) -> list[Device]:
    return [Device(f"d{index}", **behaviour) for index in range(count)]  # type: ignore[arg-type]
