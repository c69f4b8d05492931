"""The rollout engine: a pure state machine. State and event in, state and actions out; no clock, no I/O.

Its life is the table in `table.py`. Devices are observed in `observe.py`, which never acts; decisions are taken
here, on a tick. Who is asked is in `asking.py`, and how it ends in `ending.py`. An offline device is censored:
neither healthy nor failed, not waited for, and counted. A message costs the same in any fleet; a tick looks
at those that may be told something, and at those with news.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from edgewright_fleet.rollout.asking import (
    ask_those_ready,
    due_devices,
    lacks_baseline,
    may_be_updated,
    resend,
    some_of,
    with_changes,
)
from edgewright_fleet.rollout.ending import reversal, reverting, stop, succeed
from edgewright_fleet.rollout.gates import judge
from edgewright_fleet.rollout.observe import observe
from edgewright_fleet.rollout.records import DeviceRecord, changed
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import (
    ENDED,
    EXPOSED,
    AbortRequested,
    ContinueRequested,
    Decision,
    DeviceEvent,
    DeviceReported,
    Event,
    OperatorRequest,
    PauseRequested,
    PromoteRequested,
    RolloutPhase,
    RolloutState,
    Step,
    Tick,
    WindowArrived,
)
from edgewright_fleet.rollout.stopping import (
    Tally,
    blamed_on_release,
    compared,
    result_of,
    tally,
    too_few,
    why_stop,
    with_controls,
)
from edgewright_fleet.rollout.table import enter

__all__ = ["DeviceReported", "RolloutState", "WindowArrived", "advance", "hear", "resend", "reversal"]


def advance(state: RolloutState, spec: RolloutSpec, event: Event, now_s: float) -> Step:
    """The next state and what to do; an event that changes nothing gives the very same state and no action.

    `now_s` is when the event came, in Unix seconds.
    """
    if state.phase in ENDED:
        return state, []
    if isinstance(event, OperatorRequest):
        return _requested(state, spec, event, now_s)
    if not isinstance(event, Tick):
        return observe(state, (event,)), []
    step = _STEPS.get(state.phase)
    return step(state, spec, now_s) if step else (state, [])


def hear(state: RolloutState, events: Iterable[DeviceEvent]) -> RolloutState:
    """What `advance` makes of these events one after the other, as one new state: a fraction of the cost."""
    return state if state.phase in ENDED else observe(state, events)


def _requested(state: RolloutState, spec: RolloutSpec, request: OperatorRequest, now_s: float) -> Step:
    match request:
        case AbortRequested() if state.phase != "reverting":
            sentence, evidence = f"aborted {request.words}", _asked_by(request)
            return stop(state, spec, now_s, sentence, evidence, ends_as="aborted", by=request.by)
        case PauseRequested() if state.phase in ("baseline", "updating", "observing"):
            return _pause(state, now_s, f"paused {request.words}", _asked_by(request), by=request.by)
        case ContinueRequested() if state.phase == "paused":
            return _continue(state, spec, now_s, request)
        case PromoteRequested() if "observing" in (state.phase, state.paused_in):
            if state.phase == "paused":
                state = enter(state, "observing", now_s, verdict=None, paused_in=None)
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


def _baseline(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    first = [state.devices[name] for name in state.waves[0]]
    if not any(lacks_baseline(record, spec) for record in first) and (
        online := sum(record.online for record in first)
    ):
        return _enter_wave(
            state, spec, 0, now_s, f"baseline known on {online} of {len(first)} devices of wave 1"
        )
    if now_s - state.since_s > spec.gates.timeout_s:
        lacking = [name for name in state.waves[0] if lacks_baseline(state.devices[name], spec)]
        sentence = _why_no_baseline(lacking, spec, "wave 1: ")
        return _pause(state, now_s, f"inconclusive: {sentence}", {"lacking": lacking})
    return state, []


def _why_no_baseline(lacking: list[str], spec: RolloutSpec, prefix: str) -> str:
    if not lacking:
        return f"{prefix}no device can be reached"
    return f"{prefix}no baseline of {spec.gates.min_inferences} inferences from {some_of(lacking)}"


def _enter_wave(state: RolloutState, spec: RolloutSpec, wave: int, now_s: float, why: str) -> Step:
    names = list(state.waves[wave])
    sentence = f"{why}; wave {wave + 1} of {len(state.waves)} begins: {some_of(names)}"
    evidence = {"wave": wave + 1, "devices": names}
    state = with_controls(state, spec)
    return enter(state, "updating", now_s, wave=wave), [Decision(sentence, evidence)]


def _updating(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    before, state = state, _judge_news(state, spec)
    found = tally(state)
    if (
        why := why_stop(found, state, spec, compared=state.comparisons is not before.comparisons)
    ) is not None:
        return stop(state, spec, now_s, why.sentence, why.evidence)
    label = f"wave {state.wave + 1}: "
    silent: list[str] = []
    for name in state.devices.at("asked"):
        record = state.devices[name]
        if record.asked_s is not None and now_s - record.asked_s > spec.gates.timeout_s:
            if record.online:
                silent.append(name)
            else:
                state = with_changes(state, name, stand="censored", reason="went offline in mid-update")
    if silent:
        silent.sort()
        sentence = f"{label}no answer for {spec.gates.timeout_s:g} s from {some_of(silent)}"
        return _pause(state, now_s, f"inconclusive: {sentence}", {"silent": silent})
    # Devices of earlier waves that were offline then belong to this one now.
    state, actions = ask_those_ready(state, spec, found, now_s)
    if state.devices.count("asked"):
        return state, actions
    due = list(due_devices(state))
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
        return enter(state, "observing", now_s), [*actions, decision]
    may = may_be_updated(spec, now_s)
    if not all(may(state.devices[name]) for name in due):  # they wait for their clocks, not we for them
        return state, actions
    if now_s - max(state.since_s, state.asked_s or 0.0) > spec.gates.timeout_s:
        if not due and state.wave + 1 == len(state.waves) and state.devices.count("committed"):
            return succeed(state, now_s)
        if due and found.open:
            waits = judge(result_of(state, spec, name) for name in found.open)
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
        return stop(state, spec, now_s, wrong.sentence, wrong.evidence)
    if state.wave + 1 == len(state.waves) and found.passed:
        return succeed(state, now_s)
    result = too_few(state, spec, failed)
    sentence = f"inconclusive: wave {state.wave + 1}: {result.sentence}"
    return _pause(state, now_s, sentence, dict(result.evidence))


def _observing(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    before, state = state, _judge_news(state, spec)
    found = tally(state)
    if (
        why := why_stop(found, state, spec, compared=state.comparisons is not before.comparisons)
    ) is not None:
        return stop(state, spec, now_s, why.sentence, why.evidence)
    waited_s = now_s - state.since_s
    if waited_s < spec.gates.window_s:
        return state, []
    late = waited_s > spec.gates.timeout_s
    open_ = (name for name in state.devices.undecided if state.devices[name].stand == "committed")
    if not late and any(found.is_open(name) for name in open_):
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
    result = judge(result_of(state, spec, name) for name in (working if own else ()))
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
        return succeed(state, now_s)
    return _enter_wave(state, spec, state.wave + 1, now_s, "promoted")


def _judge_news(state: RolloutState, spec: RolloutSpec) -> RolloutState:
    """The state with a verdict of each device that has news, and with its comparison once it can be made."""
    if not state.devices.unjudged:
        return state
    judged: dict[str, DeviceRecord] = {}
    for name in sorted(state.devices.unjudged):
        record, verdict = state.devices[name], result_of(state, spec, name, words=False).verdict
        if verdict != record.verdict:
            judged[name] = changed(record, verdict=verdict)
        state = compared(state, spec, name)
    return state.model_copy(update={"devices": state.devices.with_records(judged).judged()})


def _pause(
    state: RolloutState, now_s: float, verdict: str, evidence: dict[str, Any], by: str | None = None
) -> Step:
    paused = enter(state, "paused", now_s, verdict=verdict, paused_in=state.phase)
    return paused, [Decision(verdict, evidence, by)]


def _continue(state: RolloutState, spec: RolloutSpec, now_s: float, request: OperatorRequest) -> Step:
    phase = state.paused_in
    if phase is None:
        return state, []
    for name in state.devices.standing("asked"):
        state = with_changes(state, name, asked_s=now_s)
    sentence = f"continued {request.words} in wave {state.wave + 1}"
    said = Decision(sentence, _asked_by(request) | {"wave": state.wave + 1}, request.by)
    exposed = [record for record in state.standing(*EXPOSED).values() if record.wave == state.wave]
    if exposed and all(record.stand == "failed" for record in exposed) and state.wave + 1 < len(state.waves):
        # Nobody of the wave is left to be asked; who continues wants to see more devices.
        state = state.model_copy(update={"verdict": None, "paused_in": None})
        state, actions = _enter_wave(state, spec, state.wave + 1, now_s, "none of it works")
        return state, [said, *actions]
    return enter(state, phase, now_s, verdict=None, paused_in=None), [said]


_STEPS: dict[RolloutPhase, Callable[[RolloutState, RolloutSpec, float], Step]] = {
    "baseline": _baseline,
    "updating": _updating,
    "observing": _observing,
    "reverting": reverting,
}
