"""From a recorded tree (`recorded_tree`) to the fields a receiver reads; and from a real agent's inferences."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import tiny_golden, tiny_manifest, tiny_onnx
from device_agent.conftest import Device, Fleet, Registry
from device_agent.recorded_tree import (
    PI_4_ANSWER,
    cooling_device,
    cpufreq,
    jetson_hwmon,
    raspberry_pi,
    thermal_zone,
)
from edgewright.telemetry import names
from edgewright.telemetry.otlp import from_bytes
from edgewright.telemetry.window import TelemetryWindow, decode_otlp
from edgewright_agent.drift import DriftWatch
from edgewright_agent.exporter import Attributes, Exporter
from edgewright_agent.inference import Durations, Spent
from edgewright_agent.sensing import Sensing
from edgewright_agent.tally import Tally
from edgewright_agent.watch import HeatReading
from edgewright_profiles import load_profile

MODEL = Attributes("sorter", "1.0.0", f"sha256:{'1' * 64}")


@dataclass
class Serving:
    """What a release that is served shows to the sensors."""

    tally: Tally = field(default_factory=Tally)
    spent: Spent = field(default_factory=Spent)
    drift: DriftWatch = field(
        default_factory=lambda: DriftWatch(tiny_manifest(tiny_onnx(), tiny_golden()), MODEL)
    )


class Site:
    """A device of a recorded tree, and what its payloads say."""

    def __init__(self, root: Path, profile: str) -> None:
        self.exporter = Exporter(fleet="plant", device="line-3", profile=profile, boot="b0")
        self.serving: Any = Serving()
        self.now_s = time.monotonic()
        self.sensing = Sensing(
            self.exporter, lambda: self.serving, load_profile(profile), threads=1, root=root
        )

    def pass_time(self, seconds: float, *, inferences: int = 0, each_s: float = 0.01) -> None:
        for _ in range(inferences):
            self.exporter.record(MODEL, each_s)
            self.serving.tally.succeed(self.serving.tally.begin())
            self.serving.spent.add(Durations(run=each_s))
        end = self.now_s + seconds
        while self.now_s < end - 1e-9:
            self.now_s += 0.5
            self.sensing.sample(self.now_s)

    def window(self) -> TelemetryWindow:
        self.exporter.record(MODEL, 0.01)
        self.sensing.report(self.now_s)
        (window,) = decode_otlp(self.exporter.collect())
        return window


def test_a_jetsons_window_says_what_it_drew_and_how_sure_that_is(tmp_path: Path) -> None:
    folder = jetson_hwmon(tmp_path, {"VDD_IN": (5000, 1000)}, shunt_uohm=5000)
    site = Site(tmp_path, "jetson-orin-nano")
    site.pass_time(10)
    rest = site.window()
    assert (rest.energy_sensor, rest.sensor_period_s) == ("ina3221 VDD_IN", 0.5)
    assert rest.energy_j == pytest.approx(5.0 * 9.5, rel=1e-4)  # the first reading starts the count
    assert rest.energy_uncertainty_j == pytest.approx(0.121 * 9.5, rel=1e-4)
    assert rest.idle_w == pytest.approx(5.0) and rest.energy_above_idle_j == pytest.approx(0.0)
    (folder / "curr1_input").write_text("2000\n")
    site.pass_time(0.5, inferences=1)
    for _ in range(19):
        site.pass_time(0.5, inferences=1)
    work = site.window()
    # The load rose within the first interval.
    assert work.energy_above_idle_j == pytest.approx(5.0 * 9.75, rel=1e-4)
    assert work.energy_per_inference_j == pytest.approx(5.0 * 9.75 / 21, rel=1e-4)
    assert work.estimated_energy_j is None


def test_a_device_without_a_sensor_has_no_figure_and_at_most_an_estimate(tmp_path: Path) -> None:
    raspberry_pi(tmp_path, {"pmic_read_adc": PI_4_ANSWER, "get_throttled": "throttled=0x0"})
    for profile, estimated in (("raspberry-pi-4", True), ("x86-64-gateway", False)):
        site = Site(tmp_path, profile)
        site.pass_time(10, inferences=4, each_s=0.5)
        site.exporter.record(MODEL, 0.01)
        site.sensing.report(site.now_s)
        payload = site.exporter.collect()
        (window,) = decode_otlp(payload)
        assert window.energy_j is window.energy_sensor is window.energy_above_idle_j is window.idle_w is None
        series = {
            m.name for r in from_bytes(payload).resource_metrics for s in r.scope_metrics for m in s.metrics
        }
        assert names.ENERGY not in series and names.POWER not in series
        if estimated:
            # Of 6.4 - 2.7 W, one core of four for two seconds.
            assert window.estimated_energy_above_idle_j == pytest.approx(3.7 * 2 / 4)
            assert window.estimated_energy_j == pytest.approx(2.7 * 10 + 3.7 * 2 / 4, rel=0.01)
        else:
            assert window.estimated_energy_j is window.estimated_energy_above_idle_j is None


def test_latency_while_throttled_is_kept_apart_and_timed(tmp_path: Path) -> None:
    state = cooling_device(tmp_path, 0, "thermal-cpufreq-0", 0)
    thermal_zone(tmp_path, 0, "cpu-thermal", 84_000)
    cpufreq(tmp_path, 0, 1_500_000, 2_400_000)
    site = Site(tmp_path, "raspberry-pi-5")
    site.pass_time(2, inferences=3)
    state.write_text("1\n")
    site.pass_time(3)
    site.pass_time(1, inferences=2)
    assert site.sensing.heat() == HeatReading(celsius=84.0, throttled=True)
    state.write_text("0\n")
    site.pass_time(2)
    assert site.sensing.heat().throttled is False
    window = site.window()
    assert (window.latency.count, window.throttled.count) == (3 + 1, 2)
    assert window.throttled_s == pytest.approx(4.0, abs=1.1)
    assert (window.temperature_zone, window.temperature_c) == ("cpu-thermal", 84.0)
    assert window.cpu_hz == {"0": 1.5e9}
    assert site.window().throttled_s is None


def test_a_device_that_shows_nothing_has_no_figures(tmp_path: Path) -> None:
    site = Site(tmp_path, "x86-64-gateway")
    site.pass_time(3, inferences=1)
    window = site.window()
    assert window.temperature_c is window.throttled_s is window.energy_j is None
    assert window.cpu_hz == {}
    assert site.sensing.heat() == HeatReading(celsius=None, throttled=None)


def test_a_switch_of_versions_sends_the_sketch_of_the_old_one(tmp_path: Path) -> None:
    site = Site(tmp_path, "x86-64-gateway")
    spec = tiny_manifest(tiny_onnx(), tiny_golden()).inputs[0]
    import numpy as np

    raw = np.zeros(spec.shape, spec.dtype)
    site.serving.drift.observe([raw], [raw])
    site.pass_time(1)
    site.serving = Serving()
    site.pass_time(1)
    window = site.window()
    assert window.sketch is not None and window.sketch.samples == 1


def test_sampling_costs_little_of_a_core(tmp_path: Path) -> None:
    jetson_hwmon(tmp_path, {"VDD_IN": (5000, 1000)}, shunt_uohm=5000)
    for number in range(9):
        thermal_zone(tmp_path, number, f"zone-{number}", 50_000)
    for number in range(6):
        cooling_device(tmp_path, number, "thermal-cpufreq-0", 0)
        cpufreq(tmp_path, number, 1_500_000, 1_500_000)
    site = Site(tmp_path, "jetson-orin-nano")
    start = time.process_time()
    for _ in range(6):
        site.pass_time(10, inferences=10)
        site.window()
    cpu_s = time.process_time() - start
    assert cpu_s / 60 < 0.002  # the thread's waking up, some 50 µs a time, comes on top


def test_a_thread_of_its_own_samples_until_it_is_stopped(tmp_path: Path) -> None:
    jetson_hwmon(tmp_path, {"VDD_IN": (5000, 1000)})
    site = Site(tmp_path, "jetson-orin-nano")
    stopping = threading.Event()
    thread = threading.Thread(target=site.sensing.run, args=(stopping,))
    begun = time.monotonic()
    thread.start()
    joules = 0.0
    while joules < 2.4:  # of 5 W, the half second between two samples or a little more
        time.sleep(0.05)
        site.now_s = time.monotonic()
        joules += site.window().energy_j or 0.0
        assert time.monotonic() - begun < 30
    assert joules <= 5.0 * (time.monotonic() - begun)
    stopping.set()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.slow
def test_a_real_agents_last_payload_holds_the_sketch(
    device: Device, fleet: Fleet, registry: Registry
) -> None:
    device.start()
    fleet.desire(registry.release("1.0.0"), "r1")
    fleet.wait_for_phase("committed", "r1")
    fleet.wait(lambda: len(fleet.windows) > 2)
    assert device.stop() == 0
    fleet.wait(lambda: fleet.windows[-1].sketch is not None)
    sketch = fleet.windows[-1].sketch
    assert sketch is not None and sketch.samples >= 1 and set(sketch.inputs) == {"x"}
