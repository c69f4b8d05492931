"""The demo's steps, in the order in which they happen; each raises unless it saw what it is there to show."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from edgewright.artifact.manifest import ArtifactManifest, failed_checks
from edgewright.errors import EdgewrightError
from edgewright.figures import MANIFEST_COLUMNS, manifest_row
from edgewright.mqtt import BrokerSettings
from edgewright.telemetry.reading import Reading
from edgewright_converters.pipeline import convert
from edgewright_demo.models import (
    Augmented,
    Digits,
    efficientnet_lite0,
    load_digits,
    photo_crops,
    train_digits,
)
from edgewright_fleet.devices import DeviceView, fold
from edgewright_fleet.rollout.controller import start_rollout
from edgewright_fleet.rollout.engine import DeviceReported, RolloutState, WindowArrived
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.record import KeptDecision
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.store import RolloutStore
from edgewright_fleet.targets.mqtt import DeviceEvent, MqttTarget

Array = NDArray[Any]
PROFILES = ("raspberry-pi-5", "android-flagship")
DEVICES = {
    "kiosk-1": "raspberry-pi-5",
    "kiosk-2": "raspberry-pi-5",
    "kiosk-3": "raspberry-pi-5",
    "phone-1": "android-flagship",
    "phone-2": "android-flagship",
}
FLEET = "demo"
EPOCHS = 10
PHOTO_CALIBRATION, PHOTO_EVALUATION = 48, 96


class DemoError(EdgewrightError):
    """A step of the demo did not happen as it should."""


@dataclass
class Story:
    """What was seen, for the report."""

    steps: list[tuple[str, float]] = field(default_factory=list)
    manifests: list[ArtifactManifest] = field(default_factory=list)
    rollouts: list[tuple[RolloutState, list[KeptDecision]]] = field(default_factory=list)
    windows: list[Reading] = field(default_factory=list)
    views: dict[str, DeviceView] = field(default_factory=dict)
    phases: list[tuple[float, str, str, str]] = field(default_factory=list)


@contextlib.contextmanager
def _step(story: Story, console: Console, title: str) -> Iterator[None]:
    console.rule(f"{len(story.steps) + 1}. {title}", align="left")
    start = time.perf_counter()
    yield
    story.steps.append((title, time.perf_counter() - start))
    console.print(f"[green]done[/] in {story.steps[-1][1]:.0f} s")


def walk(folder: Path, console: Console) -> Story:
    """Walk the whole loop with its files in `folder`. Raises `DemoError` for the first step that fails."""
    story = Story()
    # Small models lose more to thread hand-over than they win.
    torch.set_num_threads(1)
    registry = folder / "registry"
    with _step(story, console, "Take real models: train a residual CNN on digits"):
        digits = load_digits()
        early, late = train_digits(
            digits, EPOCHS, lambda epoch, loss: console.print(f"epoch {epoch + 1}/{EPOCHS}: loss {loss:.3f}")
        )
    with _step(story, console, "Convert: INT8 ONNX and TFLite for two hardware profiles, verified"):
        _convert_all(story, console, registry, digits, early, late)
    with contextlib.ExitStack() as stack:
        from edgewright_fleet.broker import embedded_broker

        settings = stack.enter_context(embedded_broker(_free_port()))
        data = folder / "field.npz"
        np.savez(data, x=digits.test_x[:200])
        for device, profile in DEVICES.items():
            stack.enter_context(_agent(folder, device, profile, registry, data, settings))
        target = stack.enter_context(contextlib.closing(MqttTarget(settings, FLEET)))
        store = stack.enter_context(contextlib.closing(RolloutStore(folder / "rollouts.sqlite")))

        def roll(version: str, waves: tuple[int | str, ...]) -> RolloutState:
            return _roll_out(story, console, target, store, registry, version, waves)

        with _step(story, console, "Start five agents and bring 1.0.0 to them"):
            _await_devices(story, target, lambda views: sum(v.online for v in views.values()) == len(DEVICES))
            _expect(roll("1.0.0", ("rest",)), "succeeded")
            _await_devices(story, target, _everyone_measured("1.0.0"))
            _show(console, story.views)
        with _step(story, console, "Roll out 1.1.0 in waves: one device, then the rest"):
            _expect(roll("1.1.0", (1, "rest")), "succeeded")
            _await_devices(story, target, _everyone_measured("1.1.0"))
            _show(console, story.views)
        with _step(story, console, "Roll out 1.2.0, which is right but far too slow, and see it stopped"):
            state = roll("1.2.0", (1, "rest"))
            _expect(state, "failed")
            if len(state.exposed) != 1:
                raise DemoError(f"{len(state.exposed)} devices were exposed to the bad release, not one")
            story.views = {name: _without_window(view) for name, view in story.views.items()}
            _await_devices(story, target, _everyone_measured("1.1.0"))
            _show(console, story.views)
            console.print(f"stopped with {state.exposed[0]} exposed, which serves 1.1.0 again")
    return story


def _print_step(console: Console, done: int, total: int, what: str, _: float) -> None:
    console.print(f"  [{done + 1}/{total}] {what}", markup=False, highlight=False, soft_wrap=True)


def _convert_all(
    story: Story,
    console: Console,
    registry: Path,
    digits: Digits,
    early: torch.nn.Module,
    late: torch.nn.Module,
) -> None:
    calibration: Mapping[str, Array] = {"x": digits.train_x[:256]}
    evaluation: Mapping[str, Array] = {"x": digits.test_x, "y": digits.test_y}
    slow = Augmented(late).eval()
    for model, version in ((early, "1.0.0"), (late, "1.1.0"), (slow, "1.2.0")):
        console.print(f"digits {version}")
        report = convert(
            model,
            calibration=calibration,
            evaluation=evaluation,
            profile=PROFILES,
            output=registry,
            name="digits",
            version=version,
            precision="int8",
            on_step=partial(_print_step, console),
        )
        story.manifests += report.artifacts
    console.print("EfficientNet-Lite0")
    report = convert(
        efficientnet_lite0(),
        calibration={"x": photo_crops(PHOTO_CALIBRATION, seed=0)},
        evaluation={"x": photo_crops(PHOTO_EVALUATION, seed=1)},
        profile=PROFILES,
        output=registry,
        name="efficientnet-lite0",
        precision="int8",
        on_step=partial(_print_step, console),
    )
    story.manifests += report.artifacts
    for manifest in story.manifests:
        if failed := failed_checks(manifest):
            raise DemoError(
                f"{manifest.name} for {manifest.profile} ({manifest.format}) failed its gate: {failed}"
            )
    if len(story.manifests) != 4 * 2 * len(PROFILES):
        raise DemoError(f"{len(story.manifests)} artifacts were made, not {8 * len(PROFILES)}")
    table = Table("release", *MANIFEST_COLUMNS, box=SIMPLE_HEAD, pad_edge=False)
    for manifest in story.manifests:
        table.add_row(f"{manifest.name}:{manifest.version}", *manifest_row(manifest))
    console.print("latency: measured on this host, one thread; the last column is predicted")
    console.print(table)


@contextlib.contextmanager
def _agent(
    folder: Path, device: str, profile: str, registry: Path, data: Path, settings: BrokerSettings
) -> Iterator[None]:
    """An agent as a process of its own, ended with the block."""
    config = folder / f"{device}.toml"
    config.write_text(
        f'''fleet = "{FLEET}"
device = "{device}"
profile = "{profile}"
registry = "{registry}"
state_dir = "{folder / device}"
telemetry_period_s = 1.0
watch_s = 1.0

[broker]
host = "{settings.host}"
port = {settings.port}

[source]
kind = "npz"
path = "{data}"
rate_hz = 50
''',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "edgewright_cli.main", "agent", "run", "--config", str(config)]
    with (folder / f"{device}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _roll_out(
    story: Story,
    console: Console,
    target: MqttTarget,
    store: RolloutStore,
    registry: Path,
    version: str,
    waves: tuple[int | str, ...],
) -> RolloutState:
    spec = RolloutSpec(
        name=f"to-{version}",
        fleet=FLEET,
        release=f"digits:{version}",
        registry=registry,
        waves=waves,
        # Five agents share two cores here: p99 moves with the neighbours, a p50 of several times does not.
        gates=Gates(max_p50_ratio=2.0, max_p99_ratio=10.0, min_inferences=100, window_s=3.0, timeout_s=60.0),
        max_unavailable=0.5,
    )

    def watch(state: RolloutState, decisions: list[Any], events: list[DeviceEvent]) -> None:
        _take_in(story, events)
        for decision in decisions:
            console.print(f"  {decision.sentence}", highlight=False, markup=False)
        for event in events:
            if isinstance(event, DeviceReported) and event.report.target is not None:
                report = event.report
                console.print(
                    f"  {report.device}: {report.phase} ({report.target})", style="dim", markup=False
                )
            if isinstance(event, WindowArrived):
                window = event.window
                energy = f", {window.energy_j:.2f} J by {window.energy_sensor}" if window.energy_j else ""
                figures = (
                    f"p50 {window.latency.quantile(0.5) * 1e3:.3f} ms, {window.latency.events} inferences"
                )
                console.print(
                    f"  {window.device}: {window.version} {figures}{energy}", style="dim", highlight=False
                )

    state = start_rollout(spec, target, store, watch)
    story.rollouts.append((state, store.decisions(spec.name)))
    return state


def _take_in(story: Story, events: list[DeviceEvent]) -> None:
    fold(story.views, events)
    for event in events:
        if isinstance(event, WindowArrived):
            story.windows.append(event.window)
        elif isinstance(event, DeviceReported):
            report = event.report
            story.phases.append((time.time(), report.device, report.phase, str(report.target or "")))


def _expect(state: RolloutState, phase: str) -> None:
    if state.phase != phase:
        raise DemoError(f"the rollout of {state.release} ended {state.phase}, not {phase} ({state.verdict})")


def _await_devices(
    story: Story, target: MqttTarget, holds: Callable[[dict[str, DeviceView]], bool], timeout_s: float = 40.0
) -> None:
    end = time.monotonic() + timeout_s
    while not holds(story.views):
        if time.monotonic() > end:
            shown = ", ".join(f"{v.device} {v.phase} {v.running}" for v in story.views.values())
            raise DemoError(
                f"the devices did not get there within {timeout_s:g} s ({shown or 'none was seen'})"
            )
        _take_in(story, list(target.events(0.2)))


def _everyone_measured(version: str) -> Callable[[dict[str, DeviceView]], bool]:
    """Every device is online, says that it runs a version, and has measured inferences of it."""

    def holds(views: dict[str, DeviceView]) -> bool:
        return len(views) == len(DEVICES) and all(
            view.online
            and view.phase == "committed"
            and view.running is not None
            and view.running.version == version
            and view.window is not None
            and view.window.version == version
            and view.window.latency.events > 0
            for view in views.values()
        )

    return holds


def _without_window(view: DeviceView) -> DeviceView:
    return replace(view, window=None)


def _show(console: Console, views: dict[str, DeviceView]) -> None:
    for view in views.values():
        latency = view.window.latency if view.window else None
        p50, p99 = (f"{latency.quantile(q) * 1e3:.3f} ms" if latency else "–" for q in (0.5, 0.99))
        sensor = view.window.energy_sensor if view.window and view.window.energy_sensor else "no sensor here"
        status = "online" if view.online else "offline"
        console.print(
            f"  {view.device:8} {view.profile:17} {status} {view.phase:10} {view.running} p50 {p50} p99 {p99}"
            f" energy: {sensor} ({view.runtime}, measured on host)",
            highlight=False,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
