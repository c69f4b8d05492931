"""Every reader over a recorded tree (`recorded_tree`), through the code that reads a device's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.recorded_tree import (
    PI_4_ANSWER,
    PMIC,
    RAPL_WRAP,
    battery,
    hwmon,
    jetson_hwmon,
    jetson_iio,
    rapl_zone,
    raspberry_pi,
)
from edgewright_agent.power import PowerSensor, find_sensor, pmic, rapl


def found(root: Path) -> PowerSensor:
    sensor = find_sensor(root)
    assert sensor is not None
    return sensor


def watts(sensor: PowerSensor) -> float:
    """The power over a second in which nothing changes; of a counter, since its last reading."""
    sensor.read(100.0)
    energy = sensor.read(101.0)
    assert energy is not None
    return energy.joules / energy.seconds


def test_a_device_without_a_sensor_has_none(tmp_path: Path) -> None:
    assert find_sensor(tmp_path) is None


def test_rapl_counts_each_package_once(tmp_path: Path) -> None:
    counters = [
        rapl_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000),
        rapl_zone(tmp_path, "intel-rapl:0:0", "core", 500_000),
        rapl_zone(tmp_path, "intel-rapl:1", "psys", 7_000_000),
        rapl_zone(tmp_path, "intel-rapl:2", "package-1", 0),
    ]
    sensor = found(tmp_path)
    assert sensor.name == "rapl package"
    assert sensor.read(0.0) is None
    for counter in counters:
        counter.write_text(f"{int(counter.read_text()) + 2_500_000}\n")
    energy = sensor.read(1.0)
    assert energy is not None and (energy.joules, energy.seconds) == (5.0, 1.0)
    assert sensor.uncertainty_w() == pytest.approx(2 * 61e-6 / sensor.period_s)
    assert not sensor.sampled


@given(
    start=st.integers(0, RAPL_WRAP - 1),
    steps=st.lists(st.integers(0, RAPL_WRAP // 2), min_size=1, max_size=10),
)
def test_rapl_loses_nothing_when_the_counter_wraps(
    tmp_path_factory: pytest.TempPathFactory, start: int, steps: list[int]
) -> None:
    root = tmp_path_factory.mktemp("root")
    counter = rapl_zone(root, "intel-rapl:0", "package-0", start)
    sensor = rapl.find(root)
    assert sensor is not None and sensor.read(0.0) is None
    joules, at = 0.0, start
    for second, step in enumerate(steps, start=1):
        at = (at + step) % RAPL_WRAP
        counter.write_text(f"{at}\n")
        energy = sensor.read(float(second))
        assert energy is not None and energy.seconds == 1.0
        joules += energy.joules
    assert joules == pytest.approx(sum(steps) / 1e6, abs=1e-6)


def test_a_counter_that_cannot_be_read_is_absent_and_made_up_for_with_its_seconds(tmp_path: Path) -> None:
    counter = rapl_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    sensor = found(tmp_path)
    sensor.read(0.0)
    counter.write_text("")
    assert sensor.read(1.0) is None
    counter.write_text("4000000\n")
    energy = sensor.read(2.0)
    assert energy is not None and (energy.joules, energy.seconds) == (3.0, 2.0)


def test_a_jetson_reports_the_rail_that_feeds_the_module(tmp_path: Path) -> None:
    rails = {"VDD_IN": (5000, 1000), "VDD_CPU_GPU_CV": (5000, 400), "VDD_SOC": (5000, 200)}
    folder = jetson_hwmon(tmp_path, rails)
    rapl_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    sensor = found(tmp_path)
    assert sensor.name == "ina3221 VDD_IN"
    assert watts(sensor) == pytest.approx(5.0)
    (folder / "curr1_input").write_text("3000\n")
    energy = sensor.read(102.0)
    assert energy is not None and energy.joules == pytest.approx((5 + 15) / 2)


def test_without_a_total_the_rails_of_both_chips_of_an_agx_are_added_up(tmp_path: Path) -> None:
    jetson_hwmon(tmp_path, {"VDD_GPU_SOC": (5000, 1000), "VDD_CPU_CV": (5000, 1000), "NC": (5000, 900)})
    jetson_hwmon(tmp_path, {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5000, 200)}, chip="1-0041")
    sensor = found(tmp_path)
    assert sensor.name == "ina3221 VDD_GPU_SOC+VDD_CPU_CV+VDDQ_VDD2_1V8AO"
    assert watts(sensor) == pytest.approx(11.0)


@pytest.mark.parametrize(
    ("rails", "name", "power"),
    [
        ({"POM_5V_IN": 4200, "POM_5V_GPU": 300, "POM_5V_CPU": 900}, "ina3221 POM_5V_IN", 4.2),
        ({"GPU": 1000, "CPU": 2000, "SOC": 500}, "ina3221 GPU+CPU+SOC", 3.5),
    ],
)
def test_jetpack_4_shows_milliwatts_through_iio(
    tmp_path: Path, rails: dict[str, int], name: str, power: float
) -> None:
    jetson_iio(tmp_path, rails)
    sensor = found(tmp_path)
    assert (sensor.name, watts(sensor)) == (name, pytest.approx(power))
    assert sensor.uncertainty_w() is None  # the shunt, and with it the offset, is not shown there


def test_the_uncertainty_of_an_ina3221_is_its_data_sheets(tmp_path: Path) -> None:
    jetson_hwmon(tmp_path, {"VDD_IN": (5000, 1000)}, shunt_uohm=5000)
    # 0.25 % of 5 W for the current and for the voltage; 80 µV on 5 mΩ are 16 mA of 5 V; 16 mV of 1 A.
    assert found(tmp_path).uncertainty_w() == pytest.approx(2 * 0.0025 * 5 + 0.016 * 5 + 0.016 * 1)


def test_a_rail_that_cannot_be_read_makes_the_figure_absent_not_smaller(tmp_path: Path) -> None:
    folder = jetson_hwmon(tmp_path, {"VDD_GPU_SOC": (5000, 1000), "VDD_CPU_CV": (5000, 1000)})
    sensor = found(tmp_path)
    sensor.read(0.0)
    (folder / "curr2_input").unlink()
    assert sensor.read(1.0) is None


def test_readings_far_apart_are_not_joined(tmp_path: Path) -> None:
    jetson_hwmon(tmp_path, {"VDD_IN": (5000, 1000)})
    sensor = found(tmp_path)
    sensor.read(0.0)
    assert sensor.read(3600.0) is None
    assert sensor.read(3601.0) is not None


def test_a_raspberry_pi_5_adds_up_the_rails_that_have_a_current_and_a_voltage(tmp_path: Path) -> None:
    raspberry_pi(tmp_path, {"pmic_read_adc": PMIC})
    sensor = found(tmp_path)
    assert (sensor.name, sensor.period_s) == ("pmic rails", 10.0)
    expected = (
        0.00780744 * 3.610692
        + 0.1219913 * 3.299826
        + 0.2430066 * 1.816848
        + 0.02147046 * 1.101098
        + 0.75012 * 0.8936988
    )
    assert watts(sensor) == pytest.approx(expected)
    volts = 3.610692 + 3.299826 + 1.816848 + 1.101098
    assert sensor.uncertainty_w() == pytest.approx((volts * 0.976e-3 + 0.8936988 * 2.93e-3) / 2)


def test_a_raspberry_pi_4_has_no_sensor(tmp_path: Path) -> None:
    raspberry_pi(tmp_path, {"pmic_read_adc": PI_4_ANSWER})
    assert find_sensor(tmp_path) is None


def test_a_firmware_that_does_not_answer_makes_the_figure_absent(tmp_path: Path) -> None:
    program = raspberry_pi(tmp_path, {"pmic_read_adc": PMIC})
    sensor = found(tmp_path)
    sensor.read(0.0)
    program.write_text("#!/bin/sh\nexit 1\n")
    assert sensor.read(10.0) is None
    assert sensor.uncertainty_w() is None


rail_names = st.from_regex(r"[A-Z0-9_]{1,12}", fullmatch=True)
values = st.floats(0, 30, allow_nan=False).map(lambda value: round(value, 8))


@given(st.dictionaries(rail_names, st.tuples(values, values), max_size=12), st.randoms(use_true_random=False))
def test_pmic_lines_are_read_in_any_order(rails: dict[str, tuple[float, float]], random: object) -> None:
    lines = [f"  {rail}_V volt({i})={volts:.8f}V" for i, (rail, (volts, _)) in enumerate(rails.items())]
    lines += [f"{rail}_A current({i})={amperes:.8f}A" for i, (rail, (_, amperes)) in enumerate(rails.items())]
    random.shuffle(lines)  # type: ignore[attr-defined]
    reading = pmic.parse("\n".join(lines))
    assert (reading.rails if reading else {}) == rails


@given(st.text(max_size=200) | st.lists(st.sampled_from(PMIC.splitlines()), max_size=8).map("\n".join))
def test_any_answer_is_rails_with_both_or_nothing(text: str) -> None:
    reading = pmic.parse(text)
    if reading is not None:
        assert reading.rails and reading.watts >= 0
        assert all(f"{rail}_A" in text and f"{rail}_V" in text for rail in reading.rails)


def test_of_a_hwmon_chip_the_channel_that_feeds_the_others_is_read(tmp_path: Path) -> None:
    supply = {
        "power1_label": "pout1",
        "power1_input": 30_000_000,
        "power2_label": "pin",
        "power2_input": 36_000_000,
    }
    hwmon(tmp_path, 0, "pmbus", supply)
    sensor = found(tmp_path)
    assert (sensor.name, watts(sensor)) == ("hwmon pmbus pin", pytest.approx(36.0))
    assert sensor.uncertainty_w() is None


def test_an_average_is_read_rather_than_an_instant(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "amdgpu", {"power1_average": 7_000_000, "power1_input": 9_000_000})
    assert watts(found(tmp_path)) == pytest.approx(7.0)


def test_a_hwmon_counter_is_read_rather_than_a_power(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "ina260", {"power1_input": 9_000_000})
    folder = hwmon(tmp_path, 1, "ltc2947", {"energy1_input": 5_000_000})
    sensor = found(tmp_path)
    sensor.read(0.0)
    (folder / "energy1_input").write_text("8000000\n")
    energy = sensor.read(2.0)
    assert sensor.name == "hwmon ltc2947 energy1" and energy is not None and energy.joules == 3.0
    (folder / "energy1_input").write_text("1000000\n")  # reset, as its range is not known
    energy = sensor.read(3.0)
    assert energy is not None and energy.joules == 0.0


def test_a_voltage_and_a_current_of_one_channel_are_a_power(tmp_path: Path) -> None:
    hwmon(
        tmp_path,
        0,
        "ltc2945",
        {"in1_input": 12_000, "curr1_input": 500, "in10_input": 3_300, "curr10_input": 9},
    )
    sensor = found(tmp_path)
    assert (sensor.name, watts(sensor)) == ("hwmon ltc2945 in1", pytest.approx(6.0))
    assert sensor.uncertainty_w() == pytest.approx(0.0125)


def test_temperatures_and_fans_are_no_power(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "rpi_volt", {"in0_lcrit_alarm": 0})
    hwmon(tmp_path, 1, "rp1_adc", {"in1_input": 1_450, "temp1_input": 50_000})
    hwmon(tmp_path, 2, "BAT0", {"in0_input": 12_000, "curr1_input": 900, "device/capacity": 80})
    assert find_sensor(tmp_path) is None


@pytest.mark.parametrize("microamperes", [-450_000, 450_000])
def test_a_battery_gives_the_magnitude_whatever_the_sign(tmp_path: Path, microamperes: int) -> None:
    battery(tmp_path, current_now=microamperes, voltage_now=4_000_000)
    sensor = found(tmp_path)
    assert (sensor.name, watts(sensor)) == ("battery battery", pytest.approx(1.8))


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_a_battery_that_does_not_feed_the_device_says_nothing_about_it(tmp_path: Path, status: str) -> None:
    folder = battery(tmp_path, current_now=450_000, voltage_now=4_000_000)
    sensor = found(tmp_path)
    assert watts(sensor) == pytest.approx(1.8)
    (folder / "status").write_text(f"{status}\n")
    assert sensor.read(102.0) is None


def test_a_battery_of_a_mouse_and_a_mains_adapter_are_not_the_devices(tmp_path: Path) -> None:
    battery(tmp_path, "hid", scope="Device", power_now=1_000)
    battery(tmp_path, "AC", type="Mains", power_now=1_000)
    assert find_sensor(tmp_path) is None
    battery(tmp_path, "BAT0", power_now=-7_500_000)
    assert watts(found(tmp_path)) == pytest.approx(7.5)


def test_sensors_are_taken_in_the_order_that_is_written_down(tmp_path: Path) -> None:
    names = []
    battery(tmp_path, power_now=1)
    names.append(found(tmp_path).name)
    hwmon(tmp_path, 0, "ina260", {"power1_input": 1})
    names.append(found(tmp_path).name)
    rapl_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    names.append(found(tmp_path).name)
    raspberry_pi(tmp_path, {"pmic_read_adc": PMIC})
    names.append(found(tmp_path).name)
    jetson_hwmon(tmp_path, {"VDD_IN": (5000, 1000)})
    names.append(found(tmp_path).name)
    assert names == ["battery battery", "hwmon ina260 power1", "rapl package", "pmic rails", "ina3221 VDD_IN"]
