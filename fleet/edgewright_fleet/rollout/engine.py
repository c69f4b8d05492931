"""The rollout engine: a pure state machine. State and event in, state and actions out; no clock, no I/O.

Its life is the table in `table.py`. Devices are observed in `observe.py`, which never acts; decisions are taken
here, on a tick. An offline device is censored: neither healthy nor failed, not waited for, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from edgewright.twin import DesiredState
from edgewright_fleet.rollout.gates import judge
from edgewright_fleet.rollout.observe import observe, with_record
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import (
    ENDED,
    AbortRequested,
    Action,
    ContinueRequested,
    Decision,
    DeviceRecord,
    DeviceReported,
    Event,
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
    tally,
    undecided,
    why_stop,
    with_controls,
)
from edgewright_fleet.rollout.table import TABLE

__all__ = ["DeviceReported", "RolloutState", "WindowArrived", "advance", "resend"]

Step = tuple[RolloutState, list[Action]]


def advance(state: RolloutState, spec: RolloutSpec, event: Event, now_s: float) -> Step:
    """The next state and what to do; an event that changes nothing gives the very same state and no action.

    `now_s` is when the event came, in Unix seconds.
    """
    if state.phase in ENDED:
        return state, []
    if isinstance(event, AbortRequested):
        if state.phase == "reverting":
            return state, []
        return _stop(state, spec, now_s, "aborted by the operator", {}, ends_as="aborted")
    if isinstance(event, ContinueRequested):
        return _continue(state, spec, now_s)
    if not isinstance(event, Tick):
        return observe(state, event), []
    step = _STEPS.get(state.phase)
    return step(state, spec, now_s) if step else (state, [])


def resend(state: RolloutState) -> list[SetDesired]:
    """What devices were told, to be told again after the controller was killed; telling twice is harmless."""
    if state.phase in ENDED:
        return []
    return [
        *(_ask(state, name) for name in state.standing("asked", "censored")),
        *(_revert(state, name) for name in state.standing("reverting", "stranded")),
    ]


def _enter(state: RolloutState, phase: RolloutPhase, now_s: float, **changes: Any) -> RolloutState:
    if phase not in TABLE[state.phase].next:
        raise ValueError(f"a rollout that is {state.phase} does not become {phase}")
    return state.model_copy(update={"phase": phase, "since_s": now_s, **changes})


def _with(state: RolloutState, device: str, **changes: Any) -> RolloutState:
    return with_record(state, device, state.devices[device].model_copy(update=changes))


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
        return _pause(state, now_s, _why_no_baseline(lacking, spec, "wave 1: "), {"lacking": lacking})
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
    entered = _enter(state, "updating", now_s, wave=wave, devices=with_controls(state, spec))
    return entered, [Decision(sentence, evidence)]


def _updating(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    state = compared(state, spec)
    found = tally(state, spec)
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
        return _pause(state, now_s, sentence, {"silent": silent})
    state, actions = _ask_those_ready(state, spec, found, now_s)
    # Devices of earlier waves that were offline then belong to this one now.
    due = [name for wave in state.waves[: state.wave + 1] for name in wave]
    lacking = [n for n in due if state.devices[n].stand == "waiting" and state.devices[n].online]
    members = [r for r in state.devices.values() if r.wave == state.wave and r.stand == "committed"]
    if state.standing("asked"):
        return state, actions
    if not lacking and not members and (failed := _own_failures(state, found)):
        return _wholly_failed(state, spec, found, failed, now_s)
    if members and not lacking:
        offline = sum(state.devices[name].stand in ("waiting", "censored") for name in due)
        committed = sum(state.devices[name].stand == "committed" for name in due)
        sentence = f"{label}{committed} of {len(due)} devices so far run {state.release}, proved"
        sentence += f"; {offline} offline" if offline else ""
        decision = Decision(sentence, {"committed": committed, "offline": offline})
        return _enter(state, "observing", now_s), [*actions, decision]
    progress_s = max([state.since_s, *(r.asked_s for r in state.devices.values() if r.asked_s is not None)])
    if now_s - progress_s > spec.gates.timeout_s:
        if not lacking and state.wave + 1 == len(state.waves) and state.standing("committed"):
            return _succeed(state, found, now_s)
        if found.open:
            open_ = judge(list(found.open.values()))
            return _pause(state, now_s, label + open_.sentence, dict(open_.evidence))
        sentence = _why_no_baseline(lacking, spec, label)
        return _pause(state, now_s, sentence, {"lacking": lacking})
    return state, actions


def _own_failures(state: RolloutState, found: Tally) -> list[str]:
    return [name for name in found.failed if state.devices[name].wave == state.wave]


def _wholly_failed(
    state: RolloutState, spec: RolloutSpec, found: Tally, failed: list[str], now_s: float
) -> Step:
    """What becomes of a wave of which no device works, though they are too few for the test over devices."""
    if (wrong := blamed_on_release(found, state, failed)) is not None:
        return _stop(state, spec, now_s, wrong.sentence, wrong.evidence)
    if state.wave + 1 == len(state.waves) and found.passed:
        return _succeed(state, found, now_s)
    too_few = undecided(found, failed, spec)
    return _pause(state, now_s, f"wave {state.wave + 1}: {too_few.sentence}", dict(too_few.evidence))


def _ask_those_ready(state: RolloutState, spec: RolloutSpec, found: Tally, now_s: float) -> Step:
    actions: list[Action] = []
    room = spec.room(len(state.devices)) - len(state.standing("asked"))
    room = min(room, more_allowed(found, state, spec))
    for name in (name for wave in state.waves[: state.wave + 1] for name in wave):
        record = state.devices[name]
        ready = record.stand == "waiting" and record.online and not _lacks_baseline(record, spec)
        if room > 0 and ready:
            state = _with(state, name, stand="asked", wave=state.wave, asked_s=now_s)
            actions.append(_ask(state, name))
            room -= 1
    return state, actions


def _observing(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    state = compared(state, spec)
    found = tally(state, spec)
    if (stop := why_stop(found, state, spec)) is not None:
        return _stop(state, spec, now_s, stop.sentence, stop.evidence)
    passed = {name: result for name, result in found.passed.items() if state.devices[name].online}
    reachable = [*passed.values(), *found.open.values()]
    # What earlier waves measured says nothing of this one: without a device of its own it does not pass.
    own = any(state.devices[name].wave == state.wave for name in (*passed, *found.open))
    if not own and (failed := _own_failures(state, found)):
        return _wholly_failed(state, spec, found, failed, now_s)
    result = judge(reachable if own else [])
    waited_s = now_s - state.since_s
    label = f"wave {state.wave + 1}"
    if result.verdict == "pass" and waited_s >= spec.gates.window_s:
        decided = Decision(f"{label} passed the gate: {result.sentence}", dict(result.evidence))
        if state.wave + 1 == len(state.waves):
            state, more = _succeed(state, found, now_s)
        else:
            state, more = _enter_wave(state, spec, state.wave + 1, now_s, "promoted")
        return state, [decided, *more]
    if waited_s > spec.gates.timeout_s:
        return _pause(state, now_s, f"{label}: {result.sentence}", dict(result.evidence))
    return state, []


def _succeed(state: RolloutState, found: Tally, now_s: float) -> Step:
    committed, left = len(state.standing("committed")), len(state.standing("waiting", "censored"))
    refused = list(state.standing("failed"))
    verdict = f"{state.release} runs on {committed} of {len(state.devices)} devices"
    verdict += f"; {left} were offline and are left as they are" if left else ""
    verdict += f"; refused by {_some(refused)}" if refused else ""
    past = [name for name in found.failed if state.devices[name].stand == "committed"]
    verdict += f"; past a limit on {_some(past)}, too few to be the release" if past else ""
    evidence = {"committed": committed, "offline": left, "refused": refused, "past_a_limit": past}
    return _enter(state, "succeeded", now_s, verdict=verdict), [Decision(verdict, evidence)]


def _reverting(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    open_ = list(state.standing("reverting"))
    if open_ and now_s - state.since_s <= spec.gates.timeout_s:
        return state, []
    back, stranded = list(state.standing("reverted")), state.standing("stranded")
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
    return _enter(state, state.ends_as, now_s, verdict=verdict), [Decision(sentence, evidence)]


def _stop(
    state: RolloutState,
    spec: RolloutSpec,
    now_s: float,
    sentence: str,
    evidence: dict[str, Any],
    ends_as: Literal["failed", "aborted"] = "failed",
) -> Step:
    """Send the release to nobody else; take exposed devices back unless the specification says to hold.

    All go back at once: `max_unavailable` is for going forward, and a bad release is worse than a busy device.
    A device that rolled back by itself is told too, since its desired state still asks for the bad release.
    """
    actions: list[Action] = [Decision(f"stopped in wave {state.wave + 1}: {sentence}", evidence)]
    for name in state.exposed if spec.on_failure == "revert" else ():
        if state.devices[name].before is None:
            state = _with(state, name, stand="stranded", reason="it ran nothing before")
        else:
            state = _with(state, name, stand="reverting")
        actions.append(_revert(state, name))
    changes = {"verdict": sentence, "ends_as": ends_as, "paused_in": None}
    return _enter(state, "reverting", now_s, **changes), actions


def _pause(state: RolloutState, now_s: float, sentence: str, evidence: dict[str, Any]) -> Step:
    verdict = f"inconclusive: {sentence}"
    paused = _enter(state, "paused", now_s, verdict=verdict, paused_in=state.phase)
    return paused, [Decision(verdict, evidence)]


def _continue(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    phase = state.paused_in
    if phase is None:
        return state, []
    for name in state.standing("asked"):
        state = _with(state, name, asked_s=now_s)
    sentence = f"continued by the operator in wave {state.wave + 1}"
    state = _enter(state, phase, now_s, verdict=None, paused_in=None)
    members = [record for record in state.devices.values() if record.wave == state.wave]
    if members and all(r.stand == "failed" for r in members) and state.wave + 1 < len(state.waves):
        # Nobody of it is left to be asked; who continues wants to see more devices.
        return _enter_wave(state, spec, state.wave + 1, now_s, sentence)
    return state, [Decision(sentence, {"wave": state.wave + 1})]


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
