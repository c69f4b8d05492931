"""The rollout engine: a pure state machine. State and event in, state and actions out; no clock, no I/O.

Its life is the table in `table.py`. Devices are observed in `observe.py`, which never acts; decisions are taken
here, on a tick. An offline device is censored: neither healthy nor failed, not waited for, and counted. A device's
message costs the same in any fleet; a tick looks at those that may be told something, and at those with news.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from edgewright.errors import RolloutError
from edgewright.twin import DesiredState
from edgewright_fleet.rollout.gates import judge
from edgewright_fleet.rollout.maintenance import is_open
from edgewright_fleet.rollout.observe import observe, with_record
from edgewright_fleet.rollout.records import ON_TRIAL, DeviceRecord, Devices
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import (
    ENDED,
    EXPOSED,
    AbortRequested,
    Action,
    ContinueRequested,
    Decision,
    DeviceReported,
    Event,
    OperatorRequest,
    PauseRequested,
    PromoteRequested,
    RolloutPhase,
    RolloutState,
    SetDesired,
    Tick,
    WindowArrived,
)
from edgewright_fleet.rollout.stopping import (
    Tally,
    blamed_on_release,
    compared,
    more_allowed,
    result_of,
    tally,
    too_few,
    why_stop,
    with_controls,
)
from edgewright_fleet.rollout.table import TABLE

__all__ = ["DeviceReported", "RolloutState", "WindowArrived", "advance", "resend", "reversal"]

Step = tuple[RolloutState, list[Action]]
BURST_S = 1.0
"""How much pacing may catch up on: ticks are not exact, and a second's worth at once harms nobody."""


def advance(state: RolloutState, spec: RolloutSpec, event: Event, now_s: float) -> Step:
    """The next state and what to do; an event that changes nothing gives the very same state and no action.

    `now_s` is when the event came, in Unix seconds.
    """
    if state.phase in ENDED:
        return state, []
    if isinstance(event, OperatorRequest):
        return _requested(state, spec, event, now_s)
    if not isinstance(event, Tick):
        return observe(state, event), []
    step = _STEPS.get(state.phase)
    return step(state, spec, now_s) if step else (state, [])


def resend(state: RolloutState) -> list[SetDesired]:
    """What devices were told, to be told again after the controller was killed; telling twice is harmless."""
    if state.phase in ENDED:
        return []
    return [
        *(_ask(state, name) for name in state.devices.standing("asked", "censored")),
        *(_revert(state, name) for name in state.devices.standing("reverting", "stranded")),
    ]


def reversal(state: RolloutState, name: str, now_s: float) -> RolloutState:
    """The state of a rollout that takes the devices of one that has ended back to what each ran before it.

    All at once, as after a failure. Raises `RolloutError` where it has not ended or no device can go back.
    """
    if state.phase not in ENDED:
        raise RolloutError(f"rollout '{state.name}' has not ended ({state.phase})", remedy="abort it")
    on_it = [name for name in state.devices.standing(*ON_TRIAL, "reverting") if state.devices[name].before]
    if not on_it:
        raise RolloutError(
            f"no device of rollout '{state.name}' runs {state.release} and ran another one before"
        )
    records = {device: replace(state.devices[device], stand="reverting", reason=None) for device in on_it}
    return state.model_copy(
        update={
            "name": name,
            "phase": "reverting",
            "since_s": now_s,
            "waves": (tuple(on_it),),
            "wave": 0,
            "devices": Devices.of(records),
            "verdict": f"{state.release} taken back after rollout '{state.name}'",
            "ends_as": "succeeded",
        }
    )


def _enter(state: RolloutState, phase: RolloutPhase, now_s: float, **changes: Any) -> RolloutState:
    if phase not in TABLE[state.phase].next:
        raise ValueError(f"a rollout that is {state.phase} does not become {phase}")
    return state.model_copy(update={"phase": phase, "since_s": now_s, **changes})


def _with(state: RolloutState, device: str, **changes: Any) -> RolloutState:
    return with_record(state, device, replace(state.devices[device], **changes))


def _requested(state: RolloutState, spec: RolloutSpec, request: OperatorRequest, now_s: float) -> Step:
    match request:
        case AbortRequested() if state.phase != "reverting":
            sentence, evidence = f"aborted {request.words}", _asked_by(request)
            return _stop(state, spec, now_s, sentence, evidence, ends_as="aborted", by=request.by)
        case PauseRequested() if state.phase in ("baseline", "updating", "observing"):
            return _pause(state, now_s, f"paused {request.words}", _asked_by(request), by=request.by)
        case ContinueRequested() if state.phase == "paused":
            return _continue(state, spec, now_s, request)
        case PromoteRequested() if "observing" in (state.phase, state.paused_in):
            if state.phase == "paused":
                state = _enter(state, "observing", now_s, verdict=None, paused_in=None)
            sentence = f"wave {state.wave + 1} promoted {request.words}, without the rest of its observation"
            promoted = Decision(sentence, _asked_by(request), request.by)
            state, actions = _next_wave(state, spec, now_s)
            return state, [promoted, *actions]
        case PromoteRequested():
            sentence = f"not promoted, as no wave is being observed: asked {request.words}"
            return state, [Decision(sentence, _asked_by(request), request.by)]
    return state, []


def _asked_by(request: OperatorRequest) -> dict[str, Any]:
    return {"by": request.by, "why": request.why or ""}


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _baseline(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    first = [state.devices[name] for name in state.waves[0]]
    lacking = [name for name in state.waves[0] if _lacks_baseline(state.devices[name], spec)]
    online = sum(record.online for record in first)
    if online and not lacking:
        return _enter_wave(
            state, spec, 0, now_s, f"baseline known on {online} of {len(first)} devices of wave 1"
        )
    if now_s - state.since_s > spec.gates.timeout_s:
        sentence = _why_no_baseline(lacking, spec, "wave 1: ")
        return _pause(state, now_s, f"inconclusive: {sentence}", {"lacking": lacking})
    return state, []


def _lacks_baseline(record: DeviceRecord, spec: RolloutSpec) -> bool:
    """Whether a reachable device has not told yet how fast it is; one that serves nothing has nothing to tell."""
    return (
        record.online
        and record.before is not None
        and record.baseline.latency.count < spec.gates.min_inferences
    )


def _why_no_baseline(lacking: list[str], spec: RolloutSpec, prefix: str) -> str:
    if not lacking:
        return f"{prefix}no device can be reached"
    return f"{prefix}no baseline of {spec.gates.min_inferences} inferences from {_some(lacking)}"


def _enter_wave(state: RolloutState, spec: RolloutSpec, wave: int, now_s: float, why: str) -> Step:
    names = list(state.waves[wave])
    sentence = f"{why}; wave {wave + 1} of {len(state.waves)} begins: {_some(names)}"
    evidence = {"wave": wave + 1, "devices": names}
    state = with_controls(state, spec)
    return _enter(state, "updating", now_s, wave=wave), [Decision(sentence, evidence)]


def _updating(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    state = _judge_news(state, spec)
    found = tally(state)
    if (stop := why_stop(found, state, spec)) is not None:
        return _stop(state, spec, now_s, stop.sentence, stop.evidence)
    label = f"wave {state.wave + 1}: "
    silent: list[str] = []
    for name, record in state.standing("asked").items():
        if record.asked_s is not None and now_s - record.asked_s > spec.gates.timeout_s:
            if record.online:
                silent.append(name)
            else:
                state = _with(state, name, stand="censored", reason="went offline in mid-update")
    if silent:
        sentence = f"{label}no answer for {spec.gates.timeout_s:g} s from {_some(silent)}"
        return _pause(state, now_s, f"inconclusive: {sentence}", {"silent": silent})
    # Devices of earlier waves that were offline then belong to this one now.
    due = _due(state)
    later = _not_now(state, due, spec, now_s)
    state, actions = _ask_those_ready(state, spec, found, [name for name in due if name not in later], now_s)
    if state.devices.count("asked"):
        return state, actions
    committed_own = any(state.devices[n].wave == state.wave for n in state.devices.standing("committed"))
    if not due and not committed_own and (failed := _own_failures(state, found)):
        return _wholly_failed(state, spec, found, failed, now_s)
    if not due and committed_own:
        names = [name for wave in state.waves[: state.wave + 1] for name in wave]
        offline = sum(state.devices[name].stand in ("waiting", "censored") for name in names)
        committed = sum(state.devices[name].stand == "committed" for name in names)
        sentence = f"{label}{committed} of {len(names)} devices so far run {state.release}, proved"
        sentence += f"; {offline} offline" if offline else ""
        decision = Decision(sentence, {"committed": committed, "offline": offline})
        return _enter(state, "observing", now_s), [*actions, decision]
    if later:  # they wait for their clocks, not we for them
        return state, actions
    if now_s - max(state.since_s, state.asked_s or 0.0) > spec.gates.timeout_s:
        if not due and state.wave + 1 == len(state.waves) and state.devices.count("committed"):
            return _succeed(state, now_s)
        if due and found.open:
            waits = judge([result_of(state, spec, name) for name in found.open])
            return _pause(state, now_s, f"inconclusive: {label}{waits.sentence}", dict(waits.evidence))
        sentence = _why_no_baseline(due, spec, label)
        return _pause(state, now_s, f"inconclusive: {sentence}", {"lacking": due})
    return state, actions


def _own_failures(state: RolloutState, found: Tally) -> list[str]:
    return [name for name in found.failed if state.devices[name].wave == state.wave]


def _wholly_failed(
    state: RolloutState, spec: RolloutSpec, found: Tally, failed: list[str], now_s: float
) -> Step:
    """What becomes of a wave of which no device works, though they are too few for the test over devices."""
    if (wrong := blamed_on_release(state, spec, failed)) is not None:
        return _stop(state, spec, now_s, wrong.sentence, wrong.evidence)
    if state.wave + 1 == len(state.waves) and found.passed:
        return _succeed(state, now_s)
    result = too_few(state, spec, failed)
    sentence = f"inconclusive: wave {state.wave + 1}: {result.sentence}"
    return _pause(state, now_s, sentence, dict(result.evidence))


def _due(state: RolloutState) -> list[str]:
    """Those of the waves so far that wait and can be reached, in the order of the waves."""
    waiting = state.devices.waiting
    if not waiting:
        return []
    members = (name for wave in state.waves[: state.wave + 1] for name in wave if name in waiting)
    return [name for name in members if state.devices[name].online]


def _not_now(state: RolloutState, names: list[str], spec: RolloutSpec, now_s: float) -> set[str]:
    """Those that are outside their maintenance window, or in use and still have deferrals left."""
    open_: dict[str, bool] = {}
    found: set[str] = set()
    for name in names:
        record = state.devices[name]
        if spec.maintenance:
            zone = record.time_zone or spec.time_zone
            if zone not in open_:
                open_[zone] = is_open(spec.maintenance, zone, now_s)
            if not open_[zone]:
                found.add(name)
        if (record.deferred_until_s or 0.0) > now_s and record.deferrals <= spec.max_deferrals:
            found.add(name)
    return found


def _ask_those_ready(
    state: RolloutState, spec: RolloutSpec, found: Tally, names: list[str], now_s: float
) -> Step:
    actions: list[Action] = []
    room = spec.room(len(state.devices)) - state.devices.count("asked")
    room = min(room, more_allowed(found, state, spec))
    pause_s = 60.0 / spec.devices_per_minute if spec.devices_per_minute else 0.0
    paced_s = max(state.paced_s, now_s - BURST_S)
    for name in names:
        if room <= 0 or paced_s > now_s:
            break
        if not _lacks_baseline(state.devices[name], spec):
            state = _with(state, name, stand="asked", wave=state.wave, asked_s=now_s)
            actions.append(_ask(state, name))
            room, paced_s = room - 1, paced_s + pause_s
    if actions:
        state = state.model_copy(update={"asked_s": now_s, "paced_s": paced_s if pause_s else 0.0})
    return state, actions


def _observing(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    state = _judge_news(state, spec)
    found = tally(state)
    if (stop := why_stop(found, state, spec)) is not None:
        return _stop(state, spec, now_s, stop.sentence, stop.evidence)
    waited_s = now_s - state.since_s
    if waited_s < spec.gates.window_s:
        return state, []
    late = waited_s > spec.gates.timeout_s
    open_ = [name for name in found.open if state.devices[name].stand == "committed"]
    if open_ and not late:
        return state, []
    failed = set(found.failed)
    working = [
        name
        for name in state.devices.standing("committed")
        if name not in failed and state.devices[name].online
    ]
    # What earlier waves measured says nothing of this one: without a device of its own it does not pass.
    own = any(state.devices[name].wave == state.wave for name in working)
    if not own and (failed_own := _own_failures(state, found)):
        return _wholly_failed(state, spec, found, failed_own, now_s)
    if not own and not late:
        return state, []
    result = judge([result_of(state, spec, name) for name in working] if own else [])
    label = f"wave {state.wave + 1}"
    if result.verdict == "pass":
        passed = Decision(f"{label} passed the gate: {result.sentence}", dict(result.evidence))
        state, actions = _next_wave(state, spec, now_s)
        return state, [passed, *actions]
    if late:
        return _pause(state, now_s, f"inconclusive: {label}: {result.sentence}", dict(result.evidence))
    return state, []


def _next_wave(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    if state.wave + 1 == len(state.waves):
        return _succeed(state, now_s)
    return _enter_wave(state, spec, state.wave + 1, now_s, "promoted")


def _succeed(state: RolloutState, now_s: float) -> Step:
    committed, left = state.devices.count("committed"), state.devices.count("waiting", "censored")
    refused = state.devices.standing("failed")
    past = [name for name in tally(state).failed if state.devices[name].stand == "committed"]
    verdict = f"{state.release} runs on {committed} of {len(state.devices)} devices"
    verdict += f"; {left} were offline and are left as they are" if left else ""
    verdict += f"; refused by {_some(refused)}" if refused else ""
    verdict += f"; past a limit on {_some(past)}, too few to be the release" if past else ""
    evidence = {"committed": committed, "offline": left, "refused": refused, "past_a_limit": past}
    return _enter(state, "succeeded", now_s, verdict=verdict), [Decision(verdict, evidence)]


def _reverting(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    if state.devices.count("reverting") and now_s - state.since_s <= spec.gates.timeout_s:
        return state, []
    open_, back = state.devices.standing("reverting"), state.devices.standing("reverted")
    stranded = state.standing("stranded")
    sentence = f"stopped with {len(state.exposed)} of {len(state.devices)} devices exposed"
    sentence += (
        f"; {len(back)} back on what they ran" if spec.on_failure == "revert" else "; held as they are"
    )
    if stranded:
        reasons = [f"{name} ({record.reason})" for name, record in stranded.items()]
        sentence += f"; cannot go back: {_some(reasons)}"
    if open_:
        sentence += f"; no word of it yet from {_some(open_)}"
    evidence = {"exposed": list(state.exposed), "reverted": back, "stranded": list(stranded), "open": open_}
    verdict = f"{state.verdict}; {sentence}"
    # Asked to go back for its own sake, it succeeds where all of them did.
    ends_as = "failed" if state.ends_as == "succeeded" and (open_ or stranded) else state.ends_as
    return _enter(state, ends_as, now_s, verdict=verdict), [Decision(sentence, evidence)]


def _judge_news(state: RolloutState, spec: RolloutSpec) -> RolloutState:
    """The state with a verdict of each device that has news, and with its comparison once it can be made."""
    if not state.devices.unjudged:
        return state
    for name in sorted(state.devices.unjudged):
        verdict = result_of(state, spec, name).verdict
        if verdict != state.devices[name].verdict:
            state = _with(state, name, verdict=verdict)
        state = compared(state, spec, name)
    return state.model_copy(update={"devices": state.devices.judged()})


def _stop(
    state: RolloutState,
    spec: RolloutSpec,
    now_s: float,
    sentence: str,
    evidence: dict[str, Any],
    ends_as: Literal["failed", "aborted"] = "failed",
    by: str | None = None,
) -> Step:
    """Send the release to nobody else; take exposed devices back unless the specification says to hold.

    All go back at once: `max_unavailable` is for going forward, and a bad release is worse than a busy device.
    A device that rolled back by itself is told too, since its desired state still asks for the bad release.
    """
    actions: list[Action] = [Decision(f"stopped in wave {state.wave + 1}: {sentence}", evidence, by)]
    for name in state.exposed if spec.on_failure == "revert" else ():
        if state.devices[name].before is None:
            state = _with(state, name, stand="stranded", reason="it ran nothing before")
        else:
            state = _with(state, name, stand="reverting")
        actions.append(_revert(state, name))
    changes = {"verdict": sentence, "ends_as": ends_as, "paused_in": None}
    return _enter(state, "reverting", now_s, **changes), actions


def _pause(
    state: RolloutState, now_s: float, verdict: str, evidence: dict[str, Any], by: str | None = None
) -> Step:
    paused = _enter(state, "paused", now_s, verdict=verdict, paused_in=state.phase)
    return paused, [Decision(verdict, evidence, by)]


def _continue(state: RolloutState, spec: RolloutSpec, now_s: float, request: OperatorRequest) -> Step:
    phase = state.paused_in
    if phase is None:
        return state, []
    for name in state.devices.standing("asked"):
        state = _with(state, name, asked_s=now_s)
    sentence = f"continued {request.words} in wave {state.wave + 1}"
    said = Decision(sentence, _asked_by(request) | {"wave": state.wave + 1}, request.by)
    exposed = [record for record in state.standing(*EXPOSED).values() if record.wave == state.wave]
    if exposed and all(record.stand == "failed" for record in exposed) and state.wave + 1 < len(state.waves):
        # Nobody of the wave is left to be asked; who continues wants to see more devices.
        state = state.model_copy(update={"verdict": None, "paused_in": None})
        state, actions = _enter_wave(state, spec, state.wave + 1, now_s, "none of it works")
        return state, [said, *actions]
    return _enter(state, phase, now_s, verdict=None, paused_in=None), [said]


def _ask(state: RolloutState, device: str) -> SetDesired:
    return SetDesired(device, DesiredState(release=state.release, rollout=state.name))


def _revert(state: RolloutState, device: str) -> SetDesired:
    before = state.devices[device].before
    if before is None:
        return SetDesired(device, None)
    return SetDesired(device, DesiredState(release=before, rollout=state.name, revert=True))


_STEPS: dict[RolloutPhase, Callable[[RolloutState, RolloutSpec, float], Step]] = {
    "baseline": _baseline,
    "updating": _updating,
    "observing": _observing,
    "reverting": _reverting,
}
