"""The life of a rollout as one table: pure data, which the engine obeys and the tests walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgewright_fleet.rollout.state import RolloutPhase, RolloutState


@dataclass(frozen=True)
class Row:
    """A phase: where it leads, when, and what holds when a controller is killed in it and another goes on."""

    next: frozenset[RolloutPhase]
    when: str
    after_kill: str


def _row(following: str, when: str, after_kill: str) -> Row:
    return Row(frozenset(following.split()), when, after_kill)  # type: ignore[arg-type]


TABLE: dict[RolloutPhase, Row] = {
    "baseline": _row(
        "updating reverting paused",
        "the first wave has told how fast it is; paused at the time-out or by an operator; reverting on an abort",
        "nothing was sent; measurements since the last save are gathered again",
    ),
    "updating": _row(
        "observing succeeded reverting paused",
        "each reachable device of the wave committed; succeeded where the last wave is all offline; "
        "reverting if what devices show stops it; paused if one is silent, or the whole wave failed and is too "
        "small to tell",
        "who was asked was stored first, and is asked again: the same retained wish, which changes nothing",
    ),
    "observing": _row(
        "updating succeeded reverting paused",
        "the gate passes and the window is over, or an operator promotes; reverting if it fails; "
        "paused if it stays inconclusive",
        "observed on, from the measurements that were stored",
    ),
    "reverting": _row(
        "failed aborted succeeded",
        "every exposed device answered the revert, or the time-out; succeeded where going back was asked for",
        "who reverts was stored first, and is told again",
    ),
    "paused": _row(
        "baseline updating observing reverting",
        "an operator continues, promotes or aborts it",
        "stays paused",
    ),
    "succeeded": _row("", "–", "has ended"),
    "failed": _row("", "–", "has ended"),
    "aborted": _row("", "–", "has ended"),
}


def enter(state: RolloutState, phase: RolloutPhase, now_s: float, **changes: Any) -> RolloutState:
    """The state in another phase, as the table allows it: anything else is a mistake of the engine."""
    if phase not in TABLE[state.phase].next:
        raise ValueError(f"a rollout that is {state.phase} does not become {phase}")
    return state.model_copy(update={"phase": phase, "since_s": now_s, **changes})


def as_markdown() -> str:
    """The table as the documentation shows it."""
    lines = ["| phase | goes on to | when | after a kill of the controller |", "| --- | --- | --- | --- |"]
    for phase, row in TABLE.items():
        following = ", ".join(sorted(row.next)) or "–"
        lines.append(f"| {phase} | {following} | {row.when} | {row.after_kill} |")
    return "\n".join(lines) + "\n"
