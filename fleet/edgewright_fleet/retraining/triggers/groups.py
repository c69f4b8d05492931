"""`GroupDrift`: the devices of a profile, a release or a label taken together.

One device in drift may be a lens that is dirty; many are the world. The pooled figures compare what the devices
answer now with what the same devices answered before, each with the same weight: a busy device is not more of the
group than others, and one whose data has changed long ago not more than one whose has not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

import numpy as np
from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT
from edgewright.telemetry.sketch import expected_psi, jensen_shannon_distance, population_stability_index
from edgewright_fleet.retraining.triggers.drift_test import StreamName
from edgewright_fleet.retraining.triggers.history import DAY_S, FLAPS, DeviceDrift


class GroupDrift(BaseModel):
    """How a group of devices that run one model is, and how it was."""

    model_config = CONTRACT
    by: str = Field(description="profile, release, or the name of a label")
    group: str
    model: str
    devices: int = Field(gt=0)
    settled: int = Field(ge=0, description="of them, those that have a reference")
    drifting: int = Field(ge=0, description="settled, in drift, and not flapping")
    flapping: int = Field(ge=0, description=f"settled, and changed {FLAPS} times or more")
    by_days: int = Field(
        ge=0, description="looked at by whole days, as their data goes to and fro within one"
    )
    streams: dict[StreamName, int] = Field(
        default_factory=dict, description="drifting devices by what drifts; one may count in several"
    )
    since_s: float | None = Field(
        default=None, description="median Unix time at which they left their reference"
    )
    samples_before: int = Field(ge=0, description="that were classified, in the references")
    samples_now: int = Field(ge=0, description="since each device's last change")
    psi: float | None = Field(
        default=None,
        ge=0,
        description="population stability index of the pooled classes, less what chance gives",
    )
    distance: float | None = Field(default=None, ge=0, le=1, description="Jensen–Shannon of them, base 2")
    confidence_psi: float | None = Field(default=None, ge=0)
    classes_before: tuple[float, ...] = Field(default=(), description="shares")
    classes_now: tuple[float, ...] = Field(default=(), description="shares")

    @property
    def share(self) -> float:
        """Of the devices that have a reference, how many drift; nought where none has."""
        return self.drifting / self.settled if self.settled else 0.0


def group_drift(devices: Sequence[DeviceDrift], by: str) -> list[tuple[GroupDrift, Sequence[DeviceDrift]]]:
    """One group for each model and value of `by` with its devices, largest first.

    Devices without the label are in group '–'.
    """
    members: dict[tuple[str, str], list[DeviceDrift]] = {}
    for device in devices:
        model = device.release.partition(":")[0]
        members.setdefault((_value(device, by), model), []).append(device)
    groups = [(_group(by, value, model, found), found) for (value, model), found in members.items()]
    return sorted(groups, key=lambda pair: (-pair[0].devices, pair[0].group, pair[0].model))


def _value(device: DeviceDrift, by: str) -> str:
    if by == "profile":
        return device.profile
    return device.release if by == "release" else device.labels.get(by, "–")


def _group(by: str, value: str, model: str, devices: Sequence[DeviceDrift]) -> GroupDrift:
    settled = [d for d in devices if d.settled]
    drifting = [d for d in settled if d.drifting and not d.flapping]
    classes, confidence = _pooled(settled, "classes"), _pooled(settled, "confidence")
    before, now, psi = classes if classes else ([], [], None)
    since = [d.since_s for d in drifting if d.since_s is not None]
    return GroupDrift(
        by=by,
        group=value,
        model=model,
        devices=len(devices),
        settled=len(settled),
        drifting=len(drifting),
        flapping=sum(d.flapping for d in settled),
        by_days=sum(d.block_s >= DAY_S for d in devices),
        streams=dict(Counter(name for d in drifting for name in d.drifting)),
        since_s=median(since) if since else None,
        samples_before=round(sum(sum(d.before.get("classes", ())) for d in settled)),
        samples_now=round(sum(sum(d.now.get("classes", ())) for d in settled)),
        psi=psi,
        distance=jensen_shannon_distance(now, before) if classes else None,
        confidence_psi=confidence[2] if confidence else None,
        classes_before=_shares(before),
        classes_now=_shares(now),
    )


def _pooled(devices: Sequence[DeviceDrift], name: StreamName) -> tuple[list[int], list[int], float] | None:
    """Counts before and now, and their index; of the devices that have as many bins as most."""
    have = [d for d in devices if sum(d.before.get(name, ())) > 0 and sum(d.now.get(name, ())) > 0]
    if not have:
        return None
    bins = Counter(len(d.now[name]) for d in have).most_common(1)[0][0]
    have = [d for d in have if len(d.now[name]) == bins]
    before = _mean_device(np.array([d.before[name] for d in have]))
    now = _mean_device(np.array([d.now[name] for d in have]))
    seen = sum(a + b > 0 for a, b in zip(before, now, strict=True))
    chance = expected_psi(seen, sum(now), sum(before))
    dispersion = float(np.mean([d.dispersions[name] for d in have]))
    index = population_stability_index(now, before) - dispersion * chance
    return before, now, max(index, 0.0)


def _mean_device(counts: np.ndarray) -> list[int]:
    """The mean of the devices' shares, as counts of as many samples as would know it so well."""
    samples = counts.sum(1)
    worth = len(samples) ** 2 / (1 / samples).sum()
    return [round(float(x)) for x in (counts / samples[:, None]).mean(0) * worth]


def _shares(counts: Sequence[int]) -> tuple[float, ...]:
    return tuple(round(count / sum(counts), 6) for count in counts)
