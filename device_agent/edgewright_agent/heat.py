"""How hot the device is, how fast its cores run, and whether it throttles.

Linux kernel documentation: "Generic Thermal Sysfs driver" (`thermal_zone*/{type,temp}` in m°C,
`cooling_device*/{type,cur_state}`), "CPU Performance Scaling" (`policy*/scaling_cur_freq` in kHz), x86
`thermal_throttle` counters; and the firmware of a Raspberry Pi, `get_throttled`. A clock below its maximum is
no sign of throttling, as a governor lowers it at rest; what is taken for one are the signs of those who lower
it for heat.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgewright_agent.power.sensor import read_int, read_text
from edgewright_agent.vcgencmd import ask

SLOW_PERIOD_S = 10.0
"""Between questions to the firmware that take a process each."""
COLDEST_C = -50.0
"""Colder than any device is specified for: drivers report -256 °C and the like for a unit that is off."""
COOLING_BY_SLOWING = re.compile(r".*(cpufreq|devfreq).*|Processor|intel_powerclamp|.*-balanced")
"""Types of cooling devices that cost speed (a fan does not), with the names that mainline, ACPI and JetPack 4
use."""
THROTTLED_BITS = {1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Of `get_throttled`, now; bit 0 is under-voltage, which caps the frequency too and then sets bit 1.
Raspberry Pi documentation, "vcgencmd"."""


@dataclass(frozen=True)
class ThermalState:
    """One look. What the device does not show is absent."""

    temperatures_c: dict[str, float] = field(default_factory=dict)
    """By thermal zone."""
    frequencies_hz: dict[int, float] = field(default_factory=dict)
    """The mean over the cores of one maximum clock, by the first of them."""
    throttled: bool | None = None
    """None: nothing on this device would say so."""
    reasons: tuple[str, ...] = ()

    @property
    def hottest(self) -> tuple[str, float] | None:
        """The zone that is hottest, and its temperature."""
        return max(self.temperatures_c.items(), key=lambda item: item[1], default=None)


@dataclass
class Heat:
    """The thermal sensors of one device, found once. For one thread."""

    root: Path
    _signs: list[Callable[[float], list[str]]] = field(default_factory=list)

    @staticmethod
    def find(root: Path = Path("/")) -> Heat:
        """What there is below `root`, which may be nothing."""
        signs = (_cooling(root), _counters(root), _firmware(root))
        return Heat(root, [sign for sign in signs if sign is not None])

    def throttling(self, now_s: float) -> tuple[str, ...] | None:
        """Why the device is slowed down now: empty where it is not, None where nothing would say so.
        Cheap."""
        if not self._signs:
            return None
        return tuple(reason for sign in self._signs for reason in sign(now_s))

    def read(self, now_s: float) -> ThermalState:
        """Everything; some dozen files."""
        reasons = self.throttling(now_s)
        return ThermalState(
            zone_temperatures(self.root),
            frequencies(self.root),
            None if reasons is None else bool(reasons),
            reasons or (),
        )


def zone_temperatures(root: Path) -> dict[str, float]:
    """Degrees Celsius by zone; a unit that is off has none. Zones of one name are told apart by their
    number."""
    found: dict[str, float] = {}
    for zone in sorted(
        (root / "sys/class/thermal").glob("thermal_zone*"), key=lambda path: _number(path.name)
    ):
        millidegrees = read_int(zone / "temp")
        if millidegrees is not None and millidegrees > COLDEST_C * 1000:
            name = read_text(zone / "type") or zone.name
            found[f"{name} {_number(zone.name)}" if name in found else name] = millidegrees / 1000
    return found


def frequencies(root: Path) -> dict[int, float]:
    """Hertz by the first core of each kind: a cluster, or on x86 the cores that share a maximum."""
    kinds: dict[int | None, list[tuple[int, int]]] = defaultdict(list)
    for policy in (root / "sys/devices/system/cpu/cpufreq").glob("policy*"):
        kilohertz = read_int(policy / "scaling_cur_freq")
        if kilohertz is not None:
            kinds[read_int(policy / "cpuinfo_max_freq")].append((_number(policy.name), kilohertz))
    means = {
        min(core for core, _ in cores): 1000.0 * sum(clock for _, clock in cores) / len(cores)
        for cores in kinds.values()
    }
    return dict(sorted(means.items()))


def throttled_bits(text: str) -> int | None:
    """The bits of `throttled=0x50005` or of the kernel's bare `50005`; None for anything else."""
    match = re.fullmatch(r"\s*(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})\s*", text)
    return None if match is None else int(match[1], 16)


def _cooling(root: Path) -> Callable[[float], list[str]] | None:
    devices = [
        (kind, device / "cur_state")
        for device in sorted((root / "sys/class/thermal").glob("cooling_device*"))
        if COOLING_BY_SLOWING.fullmatch(kind := read_text(device / "type") or "")
    ]
    if not devices:
        return None
    return lambda now_s: [
        f"{kind} in state {state}" for kind, file in devices if (state := read_int(file) or 0) > 0
    ]


def _counters(root: Path) -> Callable[[float], list[str]] | None:
    cpus = root / "sys/devices/system/cpu"
    # A package shows its counter in each of its cores: the first core's stands for it, and for itself.
    counters = [
        *sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")),
        cpus / "cpu0/thermal_throttle/package_throttle_count",
    ]
    if read_int(counters[-1]) is None:
        return None
    last: dict[Path, int] = {}

    def sign(now_s: float) -> list[str]:
        reasons = []
        for counter in counters:
            count = read_int(counter)
            if count is None:
                continue
            if count > last.get(counter, count):
                reasons.append(f"{counter.parent.parent.name} {counter.name}")
            last[counter] = count
        return reasons

    return sign


def _firmware(root: Path) -> Callable[[float], list[str]] | None:
    files = sorted((root / "sys/devices/platform").glob("soc*/*:firmware/get_throttled"))

    def look() -> int | None:
        answer = read_text(files[0]) if files else ask(root, "get_throttled")
        return throttled_bits(answer or "")

    bits = look()
    if bits is None:  # no Raspberry Pi, or a user who may not ask
        return None
    period_s = 0.0 if files else SLOW_PERIOD_S
    looked_s = -math.inf

    def sign(now_s: float) -> list[str]:
        nonlocal bits, looked_s
        if now_s - looked_s >= period_s:
            looked_s, bits = now_s, look()
        return [meaning for bit, meaning in THROTTLED_BITS.items() if (bits or 0) >> bit & 1]

    return sign


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name) or -1)
