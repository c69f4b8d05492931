"""Over recorded trees (`recorded_tree`): a test machine shows neither a zone nor a clock."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.recorded_tree import (
    asked,
    cooling_device,
    cpufreq,
    put,
    raspberry_pi,
    thermal_zone,
)
from edgewright_agent.heat import Heat, throttled_bits

FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


def test_a_device_that_shows_nothing_is_not_called_cool(tmp_path: Path) -> None:
    reading = Heat.find(tmp_path).read(0.0)
    assert (reading.temperatures_c, reading.frequencies_hz, reading.throttled) == ({}, {}, None)
    assert reading.hottest is None


def test_zones_are_read_in_degrees_and_a_unit_that_is_off_is_absent(tmp_path: Path) -> None:
    thermal_zone(tmp_path, 0, "cpu-thermal", 51_500)
    thermal_zone(tmp_path, 1, "gpu-thermal", "")
    thermal_zone(tmp_path, 2, "cv0-thermal", -256_000)
    thermal_zone(tmp_path, 10, "acpitz", 27_800)
    thermal_zone(tmp_path, 11, "acpitz", 29_800)
    reading = Heat.find(tmp_path).read(0.0)
    assert reading.temperatures_c == {"cpu-thermal": 51.5, "acpitz": 27.8, "acpitz 11": 29.8}
    assert reading.hottest == ("cpu-thermal", 51.5)


def test_clocks_are_one_figure_a_kind_of_core(tmp_path: Path) -> None:
    for core, clock in ((0, 1_000_000), (1, 2_000_000)):
        cpufreq(tmp_path, core, clock, 2_400_000)
    cpufreq(tmp_path, 4, 500_000, 1_800_000)
    assert Heat.find(tmp_path).read(0.0).frequencies_hz == {0: 1.5e9, 4: 0.5e9}


@pytest.mark.parametrize(
    "kind", ["thermal-cpufreq-0", "cpufreq-cpu4", "Processor", "thermal-devfreq-0", "cpu-balanced"]
)
def test_a_cooling_device_that_costs_speed_is_throttling(tmp_path: Path, kind: str) -> None:
    fan = cooling_device(tmp_path, 0, "pwm-fan", 3)
    state = cooling_device(tmp_path, 1, kind, 0)
    heat = Heat.find(tmp_path)
    assert heat.throttling(0.0) == ()
    fan.write_text("4\n")
    state.write_text("2\n")
    reading = heat.read(1.0)
    assert reading.throttled is True and reading.reasons == (f"{kind} in state 2",)


def test_a_fan_alone_says_nothing_about_throttling(tmp_path: Path) -> None:
    cooling_device(tmp_path, 0, "pwm-fan", 3)
    assert Heat.find(tmp_path).throttling(0.0) is None


def test_x86_counters_throttle_while_they_grow(tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    core = put(tmp_path, f"{cpus}/cpu1/thermal_throttle/core_throttle_count", 7)
    put(tmp_path, f"{cpus}/cpu0/thermal_throttle/core_throttle_count", 0)
    put(tmp_path, f"{cpus}/cpu0/thermal_throttle/package_throttle_count", 9)
    heat = Heat.find(tmp_path)
    assert heat.throttling(0.0) == ()  # what was before the start is past
    core.write_text("8\n")
    assert heat.throttling(1.0) == ("cpu1 core_throttle_count",)
    assert heat.throttling(2.0) == ()


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        ("0", ()),
        ("50000", ()),  # since boot, not now
        ("1", ()),  # under-voltage alone
        ("50005", ("throttled",)),
        ("e000e", ("frequency capped", "throttled", "soft temperature limit")),
    ],
)
def test_a_raspberry_pis_kernel_file_is_read_each_time(
    tmp_path: Path, bits: str, reasons: tuple[str, ...]
) -> None:
    file = put(tmp_path, FIRMWARE, "0")
    raspberry_pi(tmp_path, {"get_throttled": "throttled=0xf"})
    heat = Heat.find(tmp_path)
    file.write_text(f"{bits}\n")
    assert heat.throttling(0.0) == reasons
    assert asked(tmp_path) == []


def test_a_raspberry_pi_without_the_file_is_asked_every_ten_seconds(tmp_path: Path) -> None:
    raspberry_pi(tmp_path, {"get_throttled": "throttled=0x4"})
    heat = Heat.find(tmp_path)
    for second in range(20):
        assert heat.throttling(float(second)) == ("throttled",)
    assert asked(tmp_path) == ["get_throttled"] * 3  # once to see whether it answers


def test_a_user_who_may_not_ask_the_firmware_does_not_know(tmp_path: Path) -> None:
    raspberry_pi(tmp_path, {"get_throttled": "VCHI initialization failed"})
    assert Heat.find(tmp_path).throttling(0.0) is None


@given(st.integers(0, 2**20 - 1))
def test_throttled_bits_are_read_from_both_forms(bits: int) -> None:
    assert throttled_bits(f"throttled=0x{bits:x}\n") == throttled_bits(f"{bits:x}\n") == bits


@given(st.text(max_size=40))
def test_any_other_answer_is_no_bits(text: str) -> None:
    bits = throttled_bits(text)
    assert bits is None or 0 <= bits < 2**32
