"""What the engine learns from its devices: reports, presence and measurements, each into a device's record.

Observing never acts and needs no clock. Messages may come late, twice and out of order: a report counts only if
it is newer than the last one of its boot, and no report counts from a boot that another one followed. Measurements
of earlier boots do count, as devices keep them while the broker is away, each once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from edgewright.twin import ReleaseReference, ReportedState
from edgewright_fleet.rollout.measured import KEPT_BOOTS, Measured
from edgewright_fleet.rollout.records import ON_TRIAL, DeviceRecord, changed, shared
from edgewright_fleet.rollout.state import (
    DeviceEvent,
    DevicePresence,
    DeviceReported,
    RolloutState,
    WindowArrived,
)


def observe(state: RolloutState, events: Iterable[DeviceEvent]) -> RolloutState:
    """The state with what devices said, one after the other; the very same state where that is nothing new."""
    known, news = state.devices, dict[str, DeviceRecord]()
    for event in events:
        device = event.device
        record = news.get(device) or known.get(device)
        if record is None:
            continue
        if isinstance(event, DeviceReported):
            after = _reported(record, state, event.report)
        elif isinstance(event, DevicePresence):
            after = _present(record, event.online, event.boot)
        else:
            after = _measured(record, state, event)
        if after is not record:
            news[device] = after
    return state.model_copy(update={"devices": known.with_records(news)}) if news else state


def with_record(state: RolloutState, device: str, record: DeviceRecord) -> RolloutState:
    """The state with one device's record replaced."""
    return state.model_copy(update={"devices": state.devices.with_record(device, record)})


def _running(record: DeviceRecord, report: ReportedState) -> ReleaseReference | None:
    if report.running is None:
        return None
    new, known = report.running.release, record.running
    # Written out, as `==` of pydantic's models costs more than all the rest of a report.
    if known and new.digest == known.digest and new.version == known.version and new.name == known.name:
        return known
    return shared(new)


def _of_boot(record: DeviceRecord, boot: str) -> dict[str, Any] | None:
    """What a message of a boot changes by itself; None where another boot has followed that one."""
    if boot == record.boot:
        return {}
    if boot in record.past_boots:
        return None
    past = (*record.past_boots, record.boot)[-KEPT_BOOTS:] if record.boot else ()
    return {"boot": sys.intern(boot), "past_boots": past, "sequence": -1}


def _present(record: DeviceRecord, online: bool, boot: str) -> DeviceRecord:
    news = _of_boot(record, boot)
    if news is None or (not news and record.online == online):
        return record
    return changed(record, **news, online=online)


def _reported(record: DeviceRecord, state: RolloutState, report: ReportedState) -> DeviceRecord:
    news = _of_boot(record, report.boot)
    if news is None or report.sequence <= news.get("sequence", record.sequence):
        return record
    until_s = report.deferred_until_s
    later = until_s is not None and until_s > (record.deferred_until_s or 0.0)
    news |= {
        "sequence": report.sequence,
        "running": _running(record, report),
        "time_zone": report.time_zone,
        "deferred_until_s": until_s,
        "deferrals": record.deferrals + later,
    }
    return changed(record, **news, **_stands(record, state, report, news["running"]))


def _stands(
    record: DeviceRecord, state: RolloutState, report: ReportedState, running: ReleaseReference | None
) -> dict[str, Any]:
    """Where a report takes a device in the rollout."""
    digest = running.digest if running else None
    ours = report.rollout == state.name
    target = report.target.digest if report.target else None
    match record.stand:
        case "waiting":
            if record.before is not None and digest == record.before.digest:
                return {"before": running}
            # A baseline is of the release that it will go back to, so it begins anew with another one.
            return {"before": running, "baseline": Measured(), "control": None}
        case "asked" | "censored":
            if report.phase == "committed" and digest == state.release.digest:
                return {"stand": "committed"}
            if report.phase == "failed" and ours and target == state.release.digest:
                return {"stand": "failed", "reason": report.reason}
        case "committed" if digest != state.release.digest:
            return {"stand": "failed", "reason": report.reason or "left the release by itself"}
        case "reverting" | "stranded" if record.before is not None:
            # While it was still at the update it ran the old release too: only its answer to the revert counts.
            if not (ours and target == record.before.digest):
                return {}
            if report.phase == "committed" and digest == record.before.digest:
                return {"stand": "reverted"}
            if report.phase == "failed":
                return {"stand": "stranded", "reason": report.reason}
    return {}


def _measured(record: DeviceRecord, state: RolloutState, event: WindowArrived) -> DeviceRecord:
    window = event.window
    if record.stand == "waiting":
        if record.before is not None and window.release == record.before.digest:
            # Once a wave has begun, what a control measures is what happens without the release.
            if record.control is not None:
                control = record.control.plus(window)
                return record if control is record.control else changed(record, control=control)
            baseline = record.baseline.plus(window)
            return record if baseline is record.baseline else changed(record, baseline=baseline)
    elif record.stand in ON_TRIAL and window.release == state.release.digest:
        after = record.after.plus(window)
        return record if after is record.after else changed(record, after=after)
    return record
