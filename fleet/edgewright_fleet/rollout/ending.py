"""How a rollout ends: well, stopped with its devices taken back, or taken back after it ended."""

from __future__ import annotations

from typing import Any, Literal

from edgewright.errors import RolloutError
from edgewright_fleet.rollout.asking import revert, some_of, with_changes
from edgewright_fleet.rollout.records import ON_TRIAL, Devices, changed
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import ENDED, Action, Decision, RolloutState, Step
from edgewright_fleet.rollout.stopping import tally
from edgewright_fleet.rollout.table import enter


def succeed(state: RolloutState, now_s: float) -> Step:
    """The end of a rollout that went well."""
    committed, left = state.devices.count("committed"), state.devices.count("waiting", "censored")
    refused = state.devices.standing("failed")
    past = [name for name in tally(state).failed if state.devices[name].stand == "committed"]
    verdict = f"{state.release} runs on {committed} of {len(state.devices)} devices"
    verdict += f"; {left} were offline and are left as they are" if left else ""
    verdict += f"; refused by {some_of(refused)}" if refused else ""
    verdict += f"; past a limit on {some_of(past)}, too few to be the release" if past else ""
    evidence = {"committed": committed, "offline": left, "refused": refused, "past_a_limit": past}
    return enter(state, "succeeded", now_s, verdict=verdict), [Decision(verdict, evidence)]


def stop(
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
            state = with_changes(state, name, stand="stranded", reason="it ran nothing before")
        else:
            state = with_changes(state, name, stand="reverting")
        actions.append(revert(state, name))
    changes = {"verdict": sentence, "ends_as": ends_as, "paused_in": None}
    return enter(state, "reverting", now_s, **changes), actions


def reverting(state: RolloutState, spec: RolloutSpec, now_s: float) -> Step:
    """The end of a rollout that was stopped, once devices answered or the time is over."""
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
        sentence += f"; cannot go back: {some_of(reasons)}"
    if open_:
        sentence += f"; no word of it yet from {some_of(open_)}"
    evidence = {"exposed": list(state.exposed), "reverted": back, "stranded": list(stranded), "open": open_}
    verdict = f"{state.verdict}; {sentence}"
    # Asked to go back for its own sake, it succeeds where all of them did.
    ends_as = "failed" if state.ends_as == "succeeded" and (open_ or stranded) else state.ends_as
    return enter(state, ends_as, now_s, verdict=verdict), [Decision(sentence, evidence)]


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
    records = {device: changed(state.devices[device], stand="reverting", reason=None) for device in on_it}
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
