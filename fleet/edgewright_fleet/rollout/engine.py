"""The rollout engine: a pure state machine. State and event in, state and actions out; no clock, no I/O.

| phase | goes on to | when |
| --- | --- | --- |
| baseline | updating | every reachable device has told how fast it is before; or `paused` at the time-out |
| updating | observing | every reachable device of the wave committed; `reverting` if one failed; or `paused` |
| observing | updating, succeeded | the gate passes; `reverting` if it fails; `paused` if it stays inconclusive |
| reverting | failed, aborted | every exposed device runs again what it ran before, or the time-out |
| succeeded, failed, aborted, paused | – | the rollout rests |

An offline device is censored: it is neither healthy nor failed, is not waited for, and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT
from edgewright.telemetry.window import TelemetryWindow
from edgewright.twin import DesiredState, ReleaseReference, ReportedState
from edgewright_fleet.rollout.gates import GateResult, Measured, judge, judge_device
from edgewright_fleet.rollout.spec import RolloutSpec

RolloutPhase = Literal[
    "baseline", "updating", "observing", "reverting", "succeeded", "failed", "aborted", "paused"
]
ENDED: frozenset[RolloutPhase] = frozenset({"succeeded", "failed", "aborted", "paused"})
Stand = Literal["waiting", "asked", "committed", "failed", "reverting", "reverted"]


class DeviceRecord(BaseModel):
    """One device in one rollout."""

    model_config = CONTRACT
    profile: str
    online: bool = False
    stand: Stand = "waiting"
    before: ReleaseReference | None = Field(default=None, description="what it ran when the rollout began")
    running: ReleaseReference | None = None
    baseline: Measured = Measured()
    after: Measured = Measured()
    reason: str | None = None


class RolloutState(BaseModel):
    """Everything the engine knows; what is stored and resumed from."""

    model_config = CONTRACT
    name: str
    release: ReleaseReference
    waves: tuple[tuple[str, ...], ...]
    devices: dict[str, DeviceRecord]
    phase: RolloutPhase = "baseline"
    wave: int = 0
    since_s: float = Field(description="when the phase began, Unix seconds")
    verdict: str | None = Field(default=None, description="why it rests, or reverts")
    ends_as: Literal["failed", "aborted"] = "failed"

    @property
    def exposed(self) -> tuple[str, ...]:
        """Devices that were ever told to run the release."""
        return tuple(name for name, record in self.devices.items() if record.stand != "waiting")


@dataclass(frozen=True)
class DeviceReported:
    """A device said what it runs and where it is with an update."""

    report: ReportedState


@dataclass(frozen=True)
class DevicePresence:
    """A device came or went."""

    device: str
    online: bool


@dataclass(frozen=True)
class WindowArrived:
    """A device's measurements of one period, seen for the first time."""

    window: TelemetryWindow


@dataclass(frozen=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True)
class AbortRequested:
    """An operator wants it to stop."""


Event = DeviceReported | DevicePresence | WindowArrived | Tick | AbortRequested


@dataclass(frozen=True)
class SetDesired:
    """Tell a device what to run."""

    device: str
    desired: DesiredState


@dataclass(frozen=True)
class Decision:
    """Something was decided, in words, with the figures behind it."""

    sentence: str
    evidence: dict[str, Any]


Action = SetDesired | Decision


def advance(
    state: RolloutState, spec: RolloutSpec, event: Event, now_s: float
) -> tuple[RolloutState, list[Action]]:
    """The next state and what to do; an event that changes nothing gives the same state and no action."""
    if state.phase in ENDED:
        return state, []
    if isinstance(event, AbortRequested):
        if state.phase == "reverting":
            return state, []
        return _stop(state, spec, now_s, "aborted by the operator", {}, ends_as="aborted")
    if isinstance(event, DevicePresence):
        return _with(state, event.device, online=event.online), []
    if isinstance(event, DeviceReported):
        return _reported(state, event.report), []
    if isinstance(event, WindowArrived):
        return _measured(state, event.window), []
    steps = {"baseline": _baseline, "updating": _updating, "observing": _observing, "reverting": _reverting}
    return steps[state.phase](state, spec, now_s)


def resend(state: RolloutState) -> list[SetDesired]:
    """What devices were told, to be told again after the controller was killed; telling twice is harmless."""
    told: list[SetDesired] = []
    for name, record in state.devices.items():
        if record.stand == "asked":
            told.append(_ask(state, name))
        elif record.stand == "reverting" and record.before is not None:
            told.append(_revert(state, name, record.before))
    return told


def _with(state: RolloutState, device: str, **changes: Any) -> RolloutState:
    record = state.devices.get(device)
    if record is None or all(getattr(record, key) == value for key, value in changes.items()):
        return state
    devices = {**state.devices, device: record.model_copy(update=changes)}
    return state.model_copy(update={"devices": devices})


def _reported(state: RolloutState, report: ReportedState) -> RolloutState:
    record = state.devices.get(report.device)
    if record is None:
        return state
    running = report.running.release if report.running else None
    state = _with(state, report.device, running=running)
    if record.stand == "waiting" and state.phase == "baseline":
        return _with(state, report.device, before=running)
    # A device that carries the release counts as committed only when it says so of this very digest.
    digest = running.digest if running else None
    if record.stand == "asked":
        if report.phase == "committed" and digest == state.release.digest:
            return _with(state, report.device, stand="committed")
        if report.phase == "failed" and report.rollout == state.name:
            return _with(state, report.device, stand="failed", reason=report.reason)
    if record.stand == "committed" and digest != state.release.digest:
        return _with(
            state, report.device, stand="failed", reason=report.reason or "left the release by itself"
        )
    if record.stand == "reverting" and record.before is not None and digest == record.before.digest:
        return _with(state, report.device, stand="reverted")
    return state


def _measured(state: RolloutState, window: TelemetryWindow) -> RolloutState:
    record = state.devices.get(window.device)
    if record is None:
        return state
    if record.before is not None and window.release == record.before.digest and record.stand == "waiting":
        baseline = record.baseline.plus(window.latency, window.errors)
        return _with(state, window.device, baseline=baseline)
    if window.release == state.release.digest and record.stand in ("asked", "committed"):
        return _with(state, window.device, after=record.after.plus(window.latency, window.errors))
    return state


def _baseline(state: RolloutState, spec: RolloutSpec, now_s: float) -> tuple[RolloutState, list[Action]]:
    need = spec.gates.min_inferences
    lacking = [
        name
        for name, record in state.devices.items()
        if record.online and record.before is not None and record.baseline.latency.count < need
    ]
    if not lacking:
        ready = sum(record.online for record in state.devices.values())
        return _enter_wave(state, 0, now_s, f"baseline known on {ready} of {len(state.devices)} devices")
    if now_s - state.since_s > spec.gates.timeout_s:
        return _pause(state, f"no baseline of {need} inferences from {', '.join(lacking[:5])}", {})
    return state, []


def _enter_wave(state: RolloutState, wave: int, now_s: float, why: str) -> tuple[RolloutState, list[Action]]:
    state = state.model_copy(update={"phase": "updating", "wave": wave, "since_s": now_s})
    names = ", ".join(state.waves[wave][:8])
    sentence = f"{why}; wave {wave + 1} of {len(state.waves)} begins: {names}"
    return state, [Decision(sentence, {"wave": wave + 1, "devices": len(state.waves[wave])})]


def _updating(state: RolloutState, spec: RolloutSpec, now_s: float) -> tuple[RolloutState, list[Action]]:
    failed = _first_failure(state, spec)
    if failed is not None:
        return _stop(state, spec, now_s, failed.sentence, failed.evidence)
    actions: list[Action] = []
    room = max(1, int(spec.max_unavailable * len(state.devices)))
    room -= sum(record.stand == "asked" for record in state.devices.values())
    for name in state.waves[state.wave]:
        record = state.devices[name]
        if room > 0 and record.stand == "waiting" and record.online:
            state = _with(state, name, stand="asked")
            actions.append(_ask(state, name))
            room -= 1
    wave = [state.devices[name] for name in state.waves[state.wave]]
    pending = [
        record for record in wave if record.stand == "asked" or (record.stand == "waiting" and record.online)
    ]
    committed = sum(record.stand == "committed" for record in wave)
    anyone = any(record.stand == "committed" for record in state.devices.values())
    if anyone and not any(record.online for record in pending):
        sentence = f"wave {state.wave + 1}: {committed} of {len(wave)} devices run {state.release}, proved"
        state = state.model_copy(update={"phase": "observing", "since_s": now_s})
        return state, [
            *actions,
            Decision(sentence, {"committed": committed, "offline": len(wave) - committed}),
        ]
    if now_s - state.since_s > spec.gates.timeout_s:
        late = [n for n in state.waves[state.wave] if state.devices[n].stand != "committed"]
        state, paused = _pause(state, f"wave {state.wave + 1}: no answer from {', '.join(late[:5])}", {})
        return state, [*actions, *paused]
    return state, actions


def _observing(state: RolloutState, spec: RolloutSpec, now_s: float) -> tuple[RolloutState, list[Action]]:
    failed = _first_failure(state, spec)
    if failed is not None:
        return _stop(state, spec, now_s, failed.sentence, failed.evidence)
    result = judge(_results(state, spec, only_online=True))
    waited = now_s - state.since_s
    if result.verdict == "pass" and waited >= spec.gates.window_s:
        passed = Decision(f"wave {state.wave + 1} passed the gate: {result.sentence}", dict(result.evidence))
        if state.wave + 1 == len(state.waves):
            censored = sum(record.stand == "waiting" for record in state.devices.values())
            verdict = f"{state.release} runs on {len(state.exposed)} devices"
            verdict += f"; {censored} were offline and are left as they are" if censored else ""
            state = state.model_copy(update={"phase": "succeeded", "verdict": verdict, "since_s": now_s})
            return state, [passed, Decision(verdict, {"offline": censored})]
        state, entered = _enter_wave(state, state.wave + 1, now_s, "promoted")
        return state, [passed, *entered]
    if waited > spec.gates.timeout_s:
        return _pause(state, f"wave {state.wave + 1}: {result.sentence}", dict(result.evidence))
    return state, []


def _reverting(state: RolloutState, spec: RolloutSpec, now_s: float) -> tuple[RolloutState, list[Action]]:
    open_ = [name for name, record in state.devices.items() if record.stand == "reverting"]
    late = now_s - state.since_s > spec.gates.timeout_s
    if open_ and not late:
        return state, []
    back = sum(record.stand == "reverted" for record in state.devices.values())
    exposed = f"{len(state.exposed)} of {len(state.devices)} devices exposed"
    sentence = f"stopped with {exposed}; {back} back on what they ran"
    if open_:
        sentence += f"; no word of it yet from {', '.join(open_[:5])}"
    verdict = f"{state.verdict}; {sentence}"
    state = state.model_copy(update={"phase": state.ends_as, "verdict": verdict, "since_s": now_s})
    return state, [Decision(sentence, {"exposed": len(state.exposed), "reverted": back, "open": len(open_)})]


def _first_failure(state: RolloutState, spec: RolloutSpec) -> GateResult | None:
    for name, record in state.devices.items():
        if record.stand == "failed":
            reason = record.reason or "no reason given"
            return GateResult(
                "fail", f"{name} refused the release: {reason}", {"device": name, "reason": reason}
            )
    failed = [result for result in _results(state, spec, only_online=False) if result.verdict == "fail"]
    return judge(failed) if failed else None


def _results(state: RolloutState, spec: RolloutSpec, *, only_online: bool) -> list[GateResult]:
    return [
        judge_device(name, record.baseline if record.before else None, record.after, spec.gates)
        for name, record in state.devices.items()
        if record.stand in ("asked", "committed") and (record.online or not only_online)
    ]


def _stop(
    state: RolloutState,
    spec: RolloutSpec,
    now_s: float,
    sentence: str,
    evidence: dict[str, Any],
    ends_as: Literal["failed", "aborted"] = "failed",
) -> tuple[RolloutState, list[Action]]:
    """Send the release to nobody else; take exposed devices back unless the specification says to hold."""
    actions: list[Action] = [Decision(f"stopped in wave {state.wave + 1}: {sentence}", evidence)]
    for name, record in state.devices.items():
        if spec.on_failure == "hold" or record.stand == "waiting":
            continue
        # A device that rolled back by itself is told too: its desired state must not ask for the bad release.
        if record.before is None:
            continue
        running_before = record.running is not None and record.running.digest == record.before.digest
        settled = record.stand == "failed" and running_before
        state = _with(state, name, stand="reverted" if settled else "reverting")
        actions.append(_revert(state, name, record.before))
    changes = {"phase": "reverting", "since_s": now_s, "verdict": sentence, "ends_as": ends_as}
    return state.model_copy(update=changes), actions


def _pause(state: RolloutState, sentence: str, evidence: dict[str, Any]) -> tuple[RolloutState, list[Action]]:
    verdict = f"inconclusive: {sentence}"
    return state.model_copy(update={"phase": "paused", "verdict": verdict}), [Decision(verdict, evidence)]


def _ask(state: RolloutState, device: str) -> SetDesired:
    return SetDesired(device, DesiredState(release=state.release, rollout=state.name))


def _revert(state: RolloutState, device: str, before: ReleaseReference) -> SetDesired:
    return SetDesired(device, DesiredState(release=before, rollout=state.name, revert=True))
