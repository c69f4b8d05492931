"""Which devices a specification means, and in which wave each is. Pure: from what devices reported.

Devices of one hardware profile are a stratum: what is broken on one kind of device shows in the first waves.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Protocol

from edgewright.errors import RolloutError
from edgewright_fleet.rollout.spec import Growth, RolloutSpec


class Selection(Protocol):
    """What is known of a device that may be chosen."""

    @property
    def profile(self) -> str | None: ...
    @property
    def online(self) -> bool: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def release(self) -> str | None: ...


def choose(spec: RolloutSpec, devices: Mapping[str, Selection]) -> dict[str, str]:
    """The devices that a specification means, with their profiles; one that has left no report has none yet.

    Raises `RolloutError` where no device is selected, or one that is named is not known.
    """
    named = () if spec.devices == "all" else spec.devices
    if missing := sorted({*named, *spec.except_devices} - set(devices)):
        raise RolloutError(f"device '{missing[0]}' is not known in fleet '{spec.fleet}'")
    chosen = {
        name: device.profile
        for name, device in sorted(devices.items())
        if device.profile is not None
        and (spec.devices == "all" or name in spec.devices)
        and name not in spec.except_devices
        and spec.profile in (None, device.profile)
        and all(device.labels.get(key) == value for key, value in spec.labels.items())
        and (spec.running is None or device.release in spec.running)
    }
    if not chosen:
        raise RolloutError(
            f"no device of fleet '{spec.fleet}' is selected", remedy="see 'edgewright fleet devices'"
        )
    return chosen


def plan_waves(
    spec: RolloutSpec, devices: Sequence[tuple[str, str]], offline: Collection[str] = ()
) -> tuple[tuple[str, ...], ...]:
    """The devices of each wave, from (device, profile) pairs that were chosen.

    A wave holds a device of every profile that is left, and beyond that as many of each as its share of those left
    (the largest remainder, Hamilton's method); those that are `offline` come last, so that a canary is one that
    can answer. A share counts of all devices.
    """
    pools = [
        _by_profile(pair for pair in sorted(devices) if (pair[0] in offline) == away)
        for away in (False, True)
    ]
    left, waves = len(devices), []
    for size in _sizes(spec, left):
        wave: list[str] = []
        for pool in pools:
            wave += _drawn(pool, size - len(wave))
        if wave:
            waves.append(tuple(wave))
    return tuple(waves)


def wave_sizes(spec: RolloutSpec, devices: int) -> tuple[int, ...]:
    """How many of so many devices each wave adds; waves that nobody is left for are left out."""
    sizes, left = [], devices
    for wanted in _sizes(spec, devices):
        size = min(wanted, left)
        sizes.append(size)
        left -= size
    return tuple(size for size in sizes if size)


def _sizes(spec: RolloutSpec, devices: int) -> Iterator[int]:
    if isinstance(spec.waves, Growth):
        yield from spec.waves.sizes(devices)
        return
    for wave in spec.waves:
        if isinstance(wave, int):
            yield wave
        else:
            yield devices if wave == "rest" else math.ceil(int(wave[:-1]) * devices / 100)


def _by_profile(devices: Iterable[tuple[str, str]]) -> dict[str, deque[str]]:
    pool: dict[str, deque[str]] = {}
    for device, profile in devices:
        pool.setdefault(profile, deque()).append(device)
    return pool


def _drawn(pool: dict[str, deque[str]], size: int) -> list[str]:
    """Take up to so many devices out of a pool, profiles by turns."""
    quotas = dict.fromkeys(pool, 0)
    for profile in [profile for profile, names in pool.items() if names][:size]:
        quotas[profile] = 1
    spare = size - sum(quotas.values())
    left = {profile: len(names) - quotas[profile] for profile, names in pool.items()}
    total = sum(left.values())
    if total <= spare:
        quotas = {profile: len(names) for profile, names in pool.items()}
    elif spare > 0:
        exact = {profile: spare * n / total for profile, n in left.items()}
        whole = {profile: int(share) for profile, share in exact.items()}
        by_remainder = sorted(pool, key=lambda p: whole[p] - exact[p])
        for profile in by_remainder[: spare - sum(whole.values())]:
            whole[profile] += 1
        quotas = {profile: quotas[profile] + whole[profile] for profile in pool}
    turns = [[names.popleft() for _ in range(quotas[profile])] for profile, names in pool.items()]
    return [device for turn in zip_longest(*turns) for device in turn if device is not None]
