"""Detecting a host from recorded trees of devices that a test machine is not, and from this host itself.

The recorded trees hold what the kernel's own device trees and public listings say such a device shows; none was
copied off a device of ours. They are read by the code that reads the real `/`.
"""

from __future__ import annotations

import platform
from dataclasses import fields
from pathlib import Path

import pytest

from edgewright_profiles.detect import DetectedHost, detect

ARM_CORE = """\
processor\t: {index}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: {part}
CPU revision\t: 1

"""
ARMV8 = "fp asimd evtstrm crc32 cpuid"
ARMV8_2 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
X86_CORE = "processor\t: 0\nmodel name\t: Intel(R) N100\nflags\t\t: fpu lm {flags}\n\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


def arm_cpuinfo(cores: int, part: str, features: str, start: int = 0) -> str:
    return "".join(
        ARM_CORE.format(index=index, part=part, features=features) for index in range(start, start + cores)
    )


def clocks(**khz: int) -> dict[str, str]:
    return {f"sys/devices/system/cpu/{cpu}/cpufreq/cpuinfo_max_freq": f"{f}\n" for cpu, f in khz.items()}


@pytest.fixture
def recorded_pi_5(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        {
            "proc/cpuinfo": arm_cpuinfo(4, "0xd0b", ARMV8_2)
            + "Revision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
            "proc/meminfo": "MemTotal:        8255696 kB\nMemFree:         7000000 kB\n",
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
            "usr/bin/vcgencmd": "",
            **clocks(cpu0=2_400_000, cpu1=2_400_000),
        },
    )


@pytest.fixture
def recorded_pi_4(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        {
            "proc/cpuinfo": arm_cpuinfo(4, "0xd08", ARMV8)
            + "Revision\t: c03115\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n",
            "proc/meminfo": "MemTotal:        3885396 kB\n",
            # Where /proc/device-tree is not linked.
            "sys/firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.5\0",
            "sys/firmware/devicetree/base/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
            "usr/bin/vcgencmd": "",
            **clocks(cpu0=1_800_000),
        },
    )


@pytest.fixture
def recorded_orin_nano(tmp_path: Path) -> Path:
    ina3221 = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    return write(
        tmp_path,
        {
            "proc/cpuinfo": arm_cpuinfo(6, "0xd42", ARMV8_2),
            "proc/meminfo": "MemTotal:        7650336 kB\n",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
            f"{ina3221}/in1_label": "VDD_IN\n",
            f"{ina3221}/in1_input": "5040\n",
            **clocks(cpu0=1_510_400, cpu4=1_510_400),
        },
    )


def test_recorded_pi_5_is_a_raspberry_pi_5(recorded_pi_5: Path) -> None:
    host = detect(recorded_pi_5)
    assert host.matching_profile == "raspberry-pi-5"
    assert host.reason == "the device tree says raspberrypi,5-model-b"
    assert host.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert (host.machine, host.processor, host.cores) == ("aarch64", "Cortex-A76", 4)
    assert "asimddp" in host.features
    assert (host.max_clock_hz, host.memory_bytes) == (2.4e9, 8_255_696 * 1024)
    assert host.power_sensors == ("pmic",)
    assert host.virtual_machine is None
    assert host.read_from["board"] == "/proc/device-tree/model"
    assert host.read_from["max_clock_hz"].endswith("cpufreq/cpuinfo_max_freq")
    assert host.read_from["power_sensors.pmic"] == "/usr/bin/vcgencmd"


def test_recorded_pi_4_has_no_power_sensor_though_it_has_vcgencmd(recorded_pi_4: Path) -> None:
    host = detect(recorded_pi_4)
    assert (host.matching_profile, host.processor) == ("raspberry-pi-4", "Cortex-A72")
    assert host.power_sensors == ()
    assert host.read_from["compatible"] == "/sys/firmware/devicetree/base/compatible"


def test_recorded_orin_nano_is_a_jetson_with_its_power_monitor(recorded_orin_nano: Path) -> None:
    host = detect(recorded_orin_nano)
    assert host.matching_profile == "jetson-orin-nano"
    assert (host.processor, host.cores) == ("Cortex-A78AE", 6)
    assert host.power_sensors == ("ina3221",)
    assert (
        host.read_from["power_sensors.ina3221"]
        == "/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in1_label"
    )


@pytest.mark.parametrize(
    ("strings", "profile"),
    [
        ("nvidia,p3768-0000+p3767-0003-super\0nvidia,p3767-0003\0nvidia,tegra234\0", "jetson-orin-nano"),
        ("nvidia,p3768-0000+p3767-0004\0nvidia,p3767-0004\0nvidia,tegra234\0", None),  # half the memory
        ("nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0", None),  # Orin NX
        ("raspberrypi,5-compute-module\0brcm,bcm2712\0", "raspberry-pi-5"),  # another board, the same chip
        ("raspberrypi,3-model-b\0brcm,bcm2837\0", None),
    ],
)
def test_other_board_matches_by_its_module_or_chip_or_not_at_all(
    tmp_path: Path, strings: str, profile: str | None
) -> None:
    host = detect(write(tmp_path, {"proc/device-tree/compatible": strings}))
    assert host.matching_profile == profile
    assert "the device tree says " in host.reason


@pytest.mark.parametrize(
    ("flags", "profile", "virtual", "said"),
    [
        ("avx2", "x86-64-gateway", False, "nearest generic: a host"),
        ("avx2 hypervisor", "x86-64-gateway", True, "nearest generic: a virtual machine"),
        ("sse4_2", None, False, "without AVX2"),
    ],
)
def test_x86_host_is_a_generic_gateway_if_it_has_avx2(
    tmp_path: Path, flags: str, profile: str | None, virtual: bool, said: str
) -> None:
    rapl = {"sys/class/powercap/intel-rapl:0/energy_uj": "1\n"}
    host = detect(write(tmp_path, {"proc/cpuinfo": X86_CORE.format(flags=flags), **rapl}))
    assert (host.machine, host.processor) == ("x86_64", "Intel(R) N100")
    assert (host.matching_profile, host.virtual_machine, host.power_sensors) == (profile, virtual, ("rapl",))
    assert said in host.reason


def test_emulated_arm_board_is_a_virtual_machine(tmp_path: Path) -> None:
    host = detect(write(tmp_path, {"proc/device-tree/compatible": "linux,dummy-virt\0"}))
    assert host.virtual_machine is True
    assert host.read_from["virtual_machine"] == "/proc/device-tree/compatible"


def test_chip_of_several_kinds_of_core_names_each_and_takes_the_highest_clock(tmp_path: Path) -> None:
    cpuinfo = arm_cpuinfo(2, "0xd80", ARMV8_2) + arm_cpuinfo(1, "0xd82", ARMV8_2, start=2)
    cpuinfo += arm_cpuinfo(1, "0xfff", ARMV8_2, start=3)
    root = write(tmp_path, {"proc/cpuinfo": cpuinfo, **clocks(cpu0=2_300_000, cpu2=3_300_000)})
    host = detect(root)
    assert host.processor == "Cortex-A520 + Cortex-X4 + implementer 0x41 part 0xfff"
    assert (host.cores, host.max_clock_hz) == (4, 3.3e9)
    assert host.read_from["max_clock_hz"] == "/sys/devices/system/cpu/cpu2/cpufreq/cpuinfo_max_freq"


def test_host_that_shows_nothing_is_unknown_and_not_guessed(tmp_path: Path) -> None:
    host = detect(tmp_path)
    unknown = {f.name: getattr(host, f.name) for f in fields(host) if f.name not in ("reason", "read_from")}
    assert not any(unknown.values())
    assert host.virtual_machine is None
    assert host.read_from == {}
    assert "no device tree" in host.reason


def test_files_of_another_shape_are_unknown_and_raise_nothing(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": "no colon\n:\nCPU implementer: what\nCPU part: ever\n",
            "proc/meminfo": "MemTotal: lots\n",
            **clocks(cpu0=-1),
        },
    )
    (root / "proc/device-tree/model").mkdir(parents=True)
    host = detect(root)
    assert (host.memory_bytes, host.max_clock_hz, host.board, host.cores) == (None, None, None, None)
    assert host.processor == "implementer what part ever"


def every_fact_that_is_known_says_where_it_was_read(host: DetectedHost) -> bool:
    said = {fact.partition(".")[0] for fact in host.read_from}
    known = {
        f.name
        for f in fields(host)
        if f.name not in ("reason", "matching_profile", "read_from")
        and getattr(host, f.name) not in (None, ())
    }
    return said == known


def test_recorded_facts_say_where_they_were_read(recorded_pi_5: Path) -> None:
    assert every_fact_that_is_known_says_where_it_was_read(detect(recorded_pi_5))


def test_this_host_is_detected_from_its_own_files() -> None:
    host = detect()
    assert host.machine == platform.machine()
    assert host.read_from["machine"] == "uname"
    assert host.cores
    assert host.memory_bytes
    assert host.reason
    assert every_fact_that_is_known_says_where_it_was_read(host)
