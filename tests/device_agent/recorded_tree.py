"""Trees as the kernel and the firmware show them, written anew: no sensor exists on a test machine.

Layouts and texts are those that vendors' documents and published logs record; the figures in them are the
tests' own.
"""

from __future__ import annotations

from pathlib import Path

RAPL_WRAP = 262_143_328_850
PMIC = """\
     3V7_WL_SW_A current(0)=0.00780744A
       3V3_SYS_A current(1)=0.12199130A
       1V8_SYS_A current(2)=0.24300660A
      DDR_VDD2_A current(3)=0.02147046A
      VDD_CORE_A current(7)=0.75012000A
     3V7_WL_SW_V volt(8)=3.61069200V
       3V3_SYS_V volt(9)=3.29982600V
       1V8_SYS_V volt(10)=1.81684800V
      DDR_VDD2_V volt(11)=1.10109800V
      VDD_CORE_V volt(15)=0.89369880V
         EXT5V_V volt(24)=4.92450000V
          BATT_V volt(25)=0.00341880V
"""
"""Five of the rails that `vcgencmd pmic_read_adc` of a Raspberry Pi 5 lists."""
PI_4_ANSWER = 'error=1 error_msg="Command not registered"\n'


def put(root: Path, path: str, value: object) -> Path:
    """Write one file of a tree."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{value}\n")
    return file


def rapl_zone(root: Path, zone: str, name: str, microjoules: int) -> Path:
    folder = f"sys/class/powercap/{zone}"
    put(root, f"{folder}/name", name)
    put(root, f"{folder}/max_energy_range_uj", RAPL_WRAP)
    return put(root, f"{folder}/energy_uj", microjoules)


def jetson_hwmon(
    root: Path, rails: dict[str, tuple[int, int]], *, chip: str = "1-0040", shunt_uohm: int | None = None
) -> Path:
    """JetPack 5 and 6: millivolts and milliamperes by rail."""
    folder = f"sys/bus/i2c/drivers/ina3221/{chip}/hwmon/hwmon1"
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        put(root, f"{folder}/in{channel}_label", label)
        put(root, f"{folder}/in{channel}_input", millivolts)
        put(root, f"{folder}/curr{channel}_input", milliamperes)
        if shunt_uohm is not None:
            put(root, f"{folder}/shunt{channel}_resistor", shunt_uohm)
    put(root, f"{folder}/in7_label", "sum of shunt voltages")
    put(root, f"{folder}/in7_input", 9)
    return root / folder


def jetson_iio(root: Path, rails: dict[str, int], *, chip: str = "6-0040") -> Path:
    """JetPack 4: milliwatts by rail."""
    folder = f"sys/bus/i2c/drivers/ina3221x/{chip}/iio:device0"
    for channel, (label, milliwatts) in enumerate(rails.items()):
        put(root, f"{folder}/rail_name_{channel}", label)
        put(root, f"{folder}/in_power{channel}_input", milliwatts)
    return root / folder


def hwmon(root: Path, number: int, name: str, files: dict[str, object]) -> Path:
    folder = f"sys/class/hwmon/hwmon{number}"
    put(root, f"{folder}/name", name)
    for file, value in files.items():
        put(root, f"{folder}/{file}", value)
    return root / folder


def battery(root: Path, name: str = "battery", **files: object) -> Path:
    for file, value in {"type": "Battery", "status": "Discharging", **files}.items():
        put(root, f"sys/class/power_supply/{name}/{file}", value)
    return root / "sys/class/power_supply" / name


def raspberry_pi(root: Path, answers: dict[str, str]) -> Path:
    """A program in the place of vcgencmd that answers with recorded texts, and counts how often it ran."""
    for question, answer in answers.items():
        put(root, f"answers/{question}", answer.rstrip("\n"))
    script = f'#!/bin/sh\necho "$1" >> "{root}/asked"\ncat "{root}/answers/$1"\n'
    program = put(root, "usr/bin/vcgencmd", script)
    program.chmod(0o755)
    return program


def asked(root: Path) -> list[str]:
    file = root / "asked"
    return file.read_text().split() if file.exists() else []


def thermal_zone(root: Path, number: int, kind: str, millidegrees: object) -> Path:
    put(root, f"sys/class/thermal/thermal_zone{number}/type", kind)
    return put(root, f"sys/class/thermal/thermal_zone{number}/temp", millidegrees)


def cooling_device(root: Path, number: int, kind: str, state: int) -> Path:
    put(root, f"sys/class/thermal/cooling_device{number}/type", kind)
    return put(root, f"sys/class/thermal/cooling_device{number}/cur_state", state)


def cpufreq(root: Path, core: int, kilohertz: int, most: int) -> Path:
    folder = f"sys/devices/system/cpu/cpufreq/policy{core}"
    put(root, f"{folder}/cpuinfo_max_freq", most)
    return put(root, f"{folder}/scaling_cur_freq", kilohertz)
