"""What this host is, read from the kernel and never guessed: a fact that cannot be read is None.

Every path is below `root`, so that a recorded tree of another device is read by the same code. Which
built-in profile describes the host is said with the reason, and so is that none does.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_BOARDS = (
    # First strings of a device tree's `compatible`, as the kernel's own trees give them: board, then chip.
    (r"raspberrypi,5-model-b", "raspberry-pi-5"),
    (r"raspberrypi,4-model-b", "raspberry-pi-4"),
    (r"brcm,bcm2712", "raspberry-pi-5"),
    (r"brcm,bcm2711", "raspberry-pi-4"),
    # Modules of the Orin Nano 8 GB: -0003, and -0005 in the developer kit. -0004 has half the memory and
    # bandwidth; -0000 and -0001 are the Orin NX.
    (r"nvidia,(p\d{4}-\d{4}\+)?p3767-000[35](-super)?", "jetson-orin-nano"),
)
_ARM_CORES = {
    # "CPU part" of implementer 0x41 (Arm), from the kernel's arch/arm64/include/asm/cputype.h.
    0xD03: "Cortex-A53",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
}
_POWER_SENSORS = (
    # What the agent's readers open, JetPack 4's second.
    ("ina3221", "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in1_label"),
    ("ina3221", "sys/bus/i2c/drivers/ina3221x/*/iio:device*/in_power0_input"),
    ("rapl", "sys/class/powercap/intel-rapl:*/energy_uj"),
    ("battery", "sys/class/power_supply/battery/current_now"),
)


@dataclass(frozen=True)
class DetectedHost:
    """What could be read, None or empty where nothing could; `read_from` names the file behind each fact."""

    machine: str | None
    """Instruction set as the kernel names it: aarch64, armv7l, x86_64."""
    board: str | None
    compatible: tuple[str, ...]
    """The device tree's board and chip, most specific first."""
    processor: str | None
    cores: int | None
    """Cores that are online."""
    features: tuple[str, ...]
    max_clock_hz: float | None
    """The highest clock of any core."""
    memory_bytes: int | None
    """What the kernel has to give: the memory fitted, less what firmware and GPU keep."""
    power_sensors: tuple[str, ...]
    virtual_machine: bool | None
    matching_profile: str | None
    reason: str
    """Why that profile, or why none."""
    read_from: dict[str, str] = field(default_factory=dict)


def detect(root: Path = Path("/")) -> DetectedHost:
    """Read what the host at `root` is. Reads only; raises nothing for what is missing or unreadable."""
    tree = _Tree(root)
    board, board_path = tree.text("proc/device-tree/model", "sys/firmware/devicetree/base/model")
    strings, strings_path = tree.text(
        "proc/device-tree/compatible", "sys/firmware/devicetree/base/compatible"
    )
    compatible = tuple(filter(None, strings.split("\0")))
    text, cpu_path = tree.text("proc/cpuinfo")
    cpuinfo = _cpuinfo(text)
    features = tuple((cpuinfo.get("flags") or cpuinfo.get("Features") or [""])[0].split())
    text, memory_path = tree.text("proc/meminfo")
    memory = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    clock, clock_path = tree.max_clock_hz()
    live = root == Path("/")
    machine = (platform.machine() or None) if live else _recorded_machine(cpuinfo, features)
    virtual_machine, virtual_path = None, ""
    if cpuinfo.get("flags"):
        virtual_machine, virtual_path = "hypervisor" in features, cpu_path
    elif "linux,dummy-virt" in compatible:  # QEMU's and crosvm's board; real boards say nothing either way
        virtual_machine, virtual_path = True, strings_path
    profile, reason = _match(machine, compatible, features, virtual_machine)
    return DetectedHost(
        machine=tree.note("machine", machine, "uname" if live else cpu_path),
        board=tree.note("board", board.strip("\0\n") or None, board_path),
        compatible=tree.note("compatible", compatible, strings_path),
        processor=tree.note("processor", _processor(cpuinfo), cpu_path),
        cores=tree.note("cores", len(cpuinfo.get("processor", ())) or None, cpu_path),
        features=tree.note("features", features, cpu_path),
        max_clock_hz=tree.note("max_clock_hz", clock, clock_path),
        memory_bytes=tree.note("memory_bytes", int(memory[1]) * 1024 if memory else None, memory_path),
        power_sensors=tree.power_sensors(compatible),
        virtual_machine=tree.note("virtual_machine", virtual_machine, virtual_path),
        matching_profile=profile,
        reason=reason,
        read_from=tree.read_from,
    )


class _Tree:
    """The files below a root, and which of them each fact came from."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.read_from: dict[str, str] = {}

    def note(self, fact: str, value: T, path: str) -> T:
        if value is not None and value != ():
            self.read_from[fact] = path
        return value

    def text(self, *names: str) -> tuple[str, str]:
        """The first file that can be read, and its path as the device knows it."""
        for name in names:
            try:
                return (self._root / name).read_bytes().decode(errors="replace"), f"/{name}"
            except OSError:
                continue
        return "", ""

    def max_clock_hz(self) -> tuple[float | None, str]:
        """Over all cores: the first core is the slowest kind on many Arm chips."""
        clocks = []
        for file in self._root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq"):
            text, path = self.text(file.relative_to(self._root).as_posix())
            if text.strip().isdecimal():
                clocks.append((float(text) * 1e3, path))
        return max(clocks, default=(None, ""))

    def power_sensors(self, compatible: tuple[str, ...]) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for kind, pattern in _POWER_SENSORS:
            if file := next(self._root.glob(pattern), None):
                found.setdefault(kind, f"/{file.relative_to(self._root).as_posix()}")
        # vcgencmd is on every Raspberry Pi, the power-management chip that it reads currents from is not.
        if "brcm,bcm2712" in compatible and (self._root / "usr/bin/vcgencmd").exists():
            found["pmic"] = "/usr/bin/vcgencmd"
        self.read_from.update({f"power_sensors.{kind}": path for kind, path in found.items()})
        return tuple(sorted(found))


def _cpuinfo(text: str) -> dict[str, list[str]]:
    """All values of each key, in order; a core has one value of most keys."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), []).append(value.strip())
    return values


def _recorded_machine(cpuinfo: dict[str, list[str]], features: tuple[str, ...]) -> str | None:
    # A recorded tree has no uname; its cpuinfo tells which kernel wrote it.
    if "lm" in features:  # long mode
        return "x86_64"
    return {"8": "aarch64", "7": "armv7l"}.get(cpuinfo.get("CPU architecture", [""])[0])


def _processor(cpuinfo: dict[str, list[str]]) -> str | None:
    if names := cpuinfo.get("model name"):
        return names[0] or None
    # The Arm kernel gives numbers in place of a name, and not the same ones for every core.
    kinds = dict.fromkeys(zip(cpuinfo.get("CPU implementer", ()), cpuinfo.get("CPU part", ()), strict=False))
    return " + ".join(_arm_core(*kind) for kind in kinds) or None


def _arm_core(implementer: str, part: str) -> str:
    unnamed = f"implementer {implementer} part {part}"
    try:
        return _ARM_CORES.get(int(part, 16), unnamed) if int(implementer, 16) == 0x41 else unnamed
    except ValueError:
        return unnamed


def _match(
    machine: str | None, compatible: tuple[str, ...], features: tuple[str, ...], virtual_machine: bool | None
) -> tuple[str | None, str]:
    for pattern, profile in _BOARDS:
        for name in compatible:
            if re.fullmatch(pattern, name):
                return profile, f"the device tree says {name}"
    if compatible:
        return None, f"the device tree says {compatible[0]}, which no built-in profile describes"
    if machine == "x86_64" and "avx2" in features:
        kind = "a virtual machine" if virtual_machine else "a host"
        return "x86-64-gateway", f"nearest generic: {kind} of x86-64 with AVX2, and no board of its own"
    if machine == "x86_64":
        return None, "x86-64 without AVX2, which no built-in profile describes"
    return None, f"no device tree to tell the board, and no generic profile for {machine or 'this machine'}"
