"""What this host is, read from the kernel and never guessed: a fact that cannot be read is None.

Every path is below `root`, so that a recorded tree of another device is read by the same code.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path

_BOARDS = (
    # The `compatible` strings of the vendors' device trees.
    ("raspberrypi,5-model-b", "raspberry-pi-5"),
    ("raspberrypi,4-model-b", "raspberry-pi-4"),
    ("nvidia,p3767", "jetson-orin-nano"),
)
_ORIN_NANO_MODULES = ("p3767-0003", "p3767-0004", "p3767-0005")
"""Module numbers of the Orin Nano 8 GB, 4 GB and developer kit; p3767-0000 and -0001 are the Orin NX."""


@dataclass(frozen=True)
class DetectedHost:
    """What could be read; `read_from` names the file behind each fact."""

    machine: str | None
    board: str | None
    processor: str | None
    cores: int | None
    features: tuple[str, ...]
    max_clock_hz: float | None
    memory_bytes: int | None
    power_sensors: tuple[str, ...]
    virtual_machine: bool | None
    matching_profile: str | None
    reason: str
    read_from: dict[str, str] = field(default_factory=dict)


def detect(root: Path = Path("/")) -> DetectedHost:
    """Read what the host at `root` is. Reads only; raises nothing for what is missing."""
    read_from: dict[str, str] = {}

    def read(fact: str, *names: str) -> str | None:
        for name in names:
            try:
                text = (root / name).read_bytes().decode(errors="replace")
            except OSError:
                continue
            read_from[fact] = f"/{name}"
            return text
        return None

    tree = ("proc/device-tree", "sys/firmware/devicetree/base")
    board = read("board", *(f"{t}/model" for t in tree))
    compatible = read("compatible", *(f"{t}/compatible" for t in tree))
    cpuinfo = _cpuinfo(read("processor", "proc/cpuinfo") or "")
    features = tuple((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    clock = read("max_clock_hz", "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    machine = _machine(root, cpuinfo, read_from)
    profile, reason = _match(machine, (compatible or "").split("\0"), features)
    return DetectedHost(
        machine=machine,
        board=board.rstrip("\0\n") if board else None,
        processor=cpuinfo.get("model name") or cpuinfo.get("Model") or None,
        cores=int(cpuinfo["cores"]) or None,
        features=features,
        max_clock_hz=float(clock) * 1e3 if clock and clock.strip().isdigit() else None,
        memory_bytes=_memory(read("memory_bytes", "proc/meminfo") or ""),
        power_sensors=_power_sensors(root),
        virtual_machine=("hypervisor" in features) if cpuinfo.get("flags") else None,
        matching_profile=profile,
        reason=reason,
        read_from=read_from,
    )


def _cpuinfo(text: str) -> dict[str, str]:
    """The first value of each key, and the number of `processor` blocks as `cores`."""
    values: dict[str, str] = {}
    cores = 0
    for line in text.splitlines():
        key, _, value = line.partition(":")
        cores += key.strip() == "processor"
        values.setdefault(key.strip(), value.strip())
    return {**values, "cores": str(cores)}


def _machine(root: Path, cpuinfo: dict[str, str], read_from: dict[str, str]) -> str | None:
    if root == Path("/"):
        read_from["machine"] = "uname"
        return platform.machine() or None
    # A recorded tree has no uname; its cpuinfo tells which kernel wrote it.
    if "flags" in cpuinfo:
        return "x86_64"
    return "aarch64" if cpuinfo.get("CPU architecture") == "8" else None


def _memory(meminfo: str) -> int | None:
    for line in meminfo.splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    return None


def _power_sensors(root: Path) -> tuple[str, ...]:
    patterns = {
        "ina3221": "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in1_label",
        "rapl": "sys/class/powercap/intel-rapl:*/energy_uj",
        "battery": "sys/class/power_supply/battery/current_now",
        "pmic": "usr/bin/vcgencmd",
    }
    return tuple(sorted(kind for kind, pattern in patterns.items() if next(root.glob(pattern), None)))


def _match(machine: str | None, compatible: list[str], features: tuple[str, ...]) -> tuple[str | None, str]:
    for needle, profile in _BOARDS:
        found = next((name for name in compatible if name.startswith(needle)), None)
        if found is None:
            continue
        if profile == "jetson-orin-nano" and not any(
            module in name for name in compatible for module in _ORIN_NANO_MODULES
        ):
            return None, f"the device tree says {found}, a Jetson module without a profile"
        return profile, f"the device tree says {found}"
    if machine == "x86_64" and "avx2" in features:
        return "x86-64-gateway", "nearest generic profile: x86-64 with AVX2, no board of its own"
    return None, "no built-in profile describes this machine"
