"""No sensor exists on a test machine: these are trees as the kernel shows them, written anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.power import find_sensor
from edgewright_agent.power.ina3221 import Ina3221
from edgewright_agent.power.rapl import Rapl

WRAP = 262_143_328_850


def rapl_zone(root: Path, zone: str, name: str, microjoules: int) -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{WRAP}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def ina3221(root: Path, rails: dict[str, tuple[int, int]], chip: str = "1-0040") -> Path:
    folder = root / "sys/bus/i2c/drivers/ina3221" / chip / "hwmon/hwmon1"
    folder.mkdir(parents=True, exist_ok=True)
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        (folder / f"in{channel}_label").write_text(f"{label}\n")
        (folder / f"in{channel}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{channel}_input").write_text(f"{milliamperes}\n")
    (folder / "in7_label").write_text("sum of shunt voltages\n")
    (folder / "in7_input").write_text("9\n")
    return folder


def test_a_device_without_a_sensor_has_none(tmp_path: Path) -> None:
    assert find_sensor(tmp_path) is None


def test_rapl_counts_each_package_once(tmp_path: Path) -> None:
    package = rapl_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    core = rapl_zone(tmp_path, "intel-rapl:0:0", "core", 500_000)
    platform = rapl_zone(tmp_path, "intel-rapl:1", "psys", 7_000_000)
    second = rapl_zone(tmp_path, "intel-rapl:2", "package-1", 0)
    sensor = find_sensor(tmp_path)
    assert sensor is not None
    assert sensor.name == "rapl package"
    assert sensor.energy_j(0.0) is None
    for counter in (package, core, platform, second):
        counter.write_text(f"{int(counter.read_text()) + 2_500_000}\n")
    assert sensor.energy_j(1.0) == 5.0


@given(
    start=st.integers(0, WRAP - 1),
    steps=st.lists(st.integers(0, WRAP // 2), min_size=1, max_size=10),
)
def test_rapl_loses_nothing_when_the_counter_wraps(
    tmp_path_factory: pytest.TempPathFactory, start: int, steps: list[int]
) -> None:
    root = tmp_path_factory.mktemp("root")
    counter = rapl_zone(root, "intel-rapl:0", "package-0", start)
    sensor = Rapl.find(root)
    assert sensor is not None
    assert sensor.energy_j(0.0) is None
    joules, at = 0.0, start
    for step in steps:
        at = (at + step) % WRAP
        counter.write_text(f"{at}\n")
        joules += sensor.energy_j(0.0) or 0.0
    assert joules == pytest.approx(sum(steps) / 1e6, abs=1e-6)


def test_a_reading_that_fails_is_absent_and_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    counter = rapl_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    sensor = Rapl.find(tmp_path)
    assert sensor is not None
    sensor.energy_j(0.0)
    counter.write_text("")
    assert sensor.energy_j(1.0) is None
    counter.write_text("4000000\n")
    assert sensor.energy_j(2.0) == 3.0


def test_a_jetson_reports_the_rail_that_feeds_the_module(tmp_path: Path) -> None:
    rails = {"VDD_IN": (5000, 1000), "VDD_CPU_GPU_CV": (5000, 400), "VDD_SOC": (5000, 200)}
    folder = ina3221(tmp_path, rails)
    rapl_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    sensor = find_sensor(tmp_path)
    assert sensor is not None
    assert sensor.name == "ina3221 VDD_IN"
    assert sensor.energy_j(10.0) is None
    assert sensor.energy_j(12.0) == pytest.approx(10.0)
    (folder / "curr1_input").write_text("3000\n")
    assert sensor.energy_j(13.0) == pytest.approx((5 + 15) / 2)


def test_without_a_total_the_rails_of_all_chips_are_added_up(tmp_path: Path) -> None:
    ina3221(tmp_path, {"VDD_GPU_SOC": (5000, 1000), "VDD_CPU_CV": (5000, 1000)})
    ina3221(tmp_path, {"VDDQ_VDD2_1V8AO": (5000, 200)}, chip="1-0041")
    sensor = Ina3221.find(tmp_path)
    assert sensor is not None
    assert sensor.name == "ina3221 VDD_GPU_SOC+VDD_CPU_CV+VDDQ_VDD2_1V8AO"
    sensor.energy_j(0.0)
    assert sensor.energy_j(1.0) == pytest.approx(11.0)


def test_a_rail_that_cannot_be_read_makes_the_figure_absent_not_smaller(tmp_path: Path) -> None:
    folder = ina3221(tmp_path, {"VDD_GPU_SOC": (5000, 1000), "VDD_CPU_CV": (5000, 1000)})
    sensor = Ina3221.find(tmp_path)
    assert sensor is not None
    sensor.energy_j(0.0)
    (folder / "curr2_input").unlink()
    assert sensor.energy_j(1.0) is None
