"""The life of an update as one table: pure, with no file, clock or socket in it.

Read a row as: in this phase, on this event, the device goes to that phase. `MEANING` says what is durable
when a phase is entered and what a power cut in it leads to. `update` walks the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgewright.twin import Phase

Event = Literal[
    "desired",
    "satisfied",
    "refused",
    "fetched",
    "verified",
    "proved",
    "switched",
    "kept",
    "failed",
    "restored",
]

TABLE: dict[tuple[Phase, Event], Phase] = {
    ("idle", "desired"): "downloading",
    ("idle", "refused"): "failed",
    ("committed", "desired"): "downloading",
    ("committed", "satisfied"): "committed",
    ("committed", "refused"): "failed",
    ("failed", "desired"): "downloading",
    # A device that failed to take a release may be told to stay with the one that it serves.
    ("failed", "satisfied"): "committed",
    ("failed", "refused"): "failed",
    ("downloading", "fetched"): "verifying",
    ("downloading", "failed"): "failed",
    ("verifying", "verified"): "proving",
    ("verifying", "failed"): "failed",
    ("proving", "proved"): "switching",
    ("proving", "failed"): "failed",
    ("switching", "switched"): "watching",
    # Whether the pointer was replaced before the error is not known; rolling back is right for both.
    ("switching", "failed"): "rolling-back",
    ("watching", "kept"): "committed",
    ("watching", "failed"): "rolling-back",
    # Rolling back cannot fail: the model before is still loaded, and where the pointer cannot be written it
    # stays marked as watched, which the next start undoes.
    ("rolling-back", "restored"): "failed",
}
RESTING: frozenset[Phase] = frozenset({"idle", "committed", "failed"})
"""Phases that wait for a desired state; none of them is a dead end."""


@dataclass(frozen=True)
class Meaning:
    """What holds in a phase."""

    durable: str
    power_cut: str


MEANING: dict[Phase, Meaning] = {
    "idle": Meaning("nothing but the state folder", "starts idle again"),
    "downloading": Meaning("the active slot, untouched", "serves the active slot; the download starts anew"),
    "verifying": Meaning(
        "the new artifact in the idle slot", "serves the active slot; the download starts anew"
    ),
    "proving": Meaning(
        "the new artifact, every digest checked", "serves the active slot; the update starts anew"
    ),
    "switching": Meaning(
        "the new artifact, proved",
        "serves the slot before: the pointer names it still, or is marked as watched",
    ),
    "watching": Meaning(
        "the pointer to the new slot, marked as watched",
        "goes back to the slot before; the update has failed, as it may have caused the restart",
    ),
    "committed": Meaning("the pointer to the new slot, no longer watched", "serves the new slot"),
    "rolling-back": Meaning("the pointer, perhaps marked as watched", "goes back to the slot before"),
    "failed": Meaning("the pointer to the slot before, and the reason", "serves the slot before"),
}


def step(phase: Phase, event: Event) -> Phase:
    """The next phase. Raises `ValueError` for an event that the phase does not know."""
    try:
        return TABLE[phase, event]
    except KeyError:
        raise ValueError(f"an update that is {phase} knows no event '{event}'") from None


def as_markdown() -> str:
    """The table as the documentation shows it."""
    lines = [
        "| phase | event → next phase | durable when entered | a power cut in it |",
        "| --- | --- | --- | --- |",
    ]
    for phase, meaning in MEANING.items():
        exits = ", ".join(f"{event} → {after}" for (before, event), after in TABLE.items() if before == phase)
        lines.append(f"| {phase} | {exits} | {meaning.durable} | {meaning.power_cut} |")
    return "\n".join(lines) + "\n"
