"""The life of an update as one table: pure, with no file, clock or socket in it.

Read a row as: in this phase, on this event, the device goes to that phase. `MEANING` says what is durable
when a phase is entered and what a power cut in it leads to. `update` walks the table.
`python -m edgewright_agent.lifecycle README.md` writes both into the documentation.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgewright.twin import Phase

Event = Literal[
    "desired",
    "satisfied",
    "refused",
    "interrupted",
    "fetched",
    "verified",
    "proved",
    "switched",
    "kept",
    "failed",
    "restored",
    "undone",
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
    # By hand: from what serves at rest to the release before it.
    ("committed", "undone"): "rolling-back",
    ("failed", "undone"): "rolling-back",
    ("downloading", "fetched"): "verifying",
    # The registry is away: it is asked again, unless a newer wish comes first.
    ("downloading", "interrupted"): "downloading",
    ("downloading", "desired"): "downloading",
    ("downloading", "satisfied"): "committed",
    ("downloading", "refused"): "failed",
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
    # Rolling back cannot fail: the model before is loaded, and where the pointer cannot be written it stays
    # marked as watched, which the next start undoes. By hand, it is entered once the pointer is written.
    ("rolling-back", "restored"): "failed",
}
RESTING: frozenset[Phase] = frozenset({"idle", "committed", "failed"})
"""Phases that wait for a desired state; none of them is a dead end."""


@dataclass(frozen=True)
class Meaning:
    """What holds in a phase."""

    durable: str
    power_cut: str
    starts_in: frozenset[Phase]
    """Where an agent that is started after the cut may find itself; a test cuts the power in each phase."""


_REST_BEFORE: frozenset[Phase] = frozenset({"idle", "committed"})
MEANING: dict[Phase, Meaning] = {
    "idle": Meaning("nothing but the state folder", "starts idle again", frozenset({"idle"})),
    "downloading": Meaning(
        "the active slot and the pointer to it, whole blobs of the new artifact",
        "serves the active slot; the download goes on with the blobs that it lacks",
        RESTING,
    ),
    "verifying": Meaning(
        "the new artifact in the idle slot; nothing names it",
        "serves the active slot; the update starts anew, with nothing left to download",
        _REST_BEFORE,
    ),
    "proving": Meaning(
        "the new artifact, every digest checked; nothing names it",
        "serves the active slot; the update starts anew, with nothing left to download",
        _REST_BEFORE,
    ),
    "switching": Meaning(
        "the new artifact, proved",
        "serves the slot before: the pointer names it still (the update starts anew), or is marked as watched "
        "(the update has failed)",
        RESTING,
    ),
    "watching": Meaning(
        "the pointer to the new slot, marked as watched",
        "goes back to the slot before; the update has failed, as it may have caused the restart",
        frozenset({"failed"}),
    ),
    "committed": Meaning(
        "the pointer to the new slot, no longer watched", "serves the new slot", frozenset({"committed"})
    ),
    "rolling-back": Meaning(
        "the pointer, perhaps marked as watched", "goes back to the slot before", frozenset({"failed"})
    ),
    "failed": Meaning(
        "the pointer to the slot before, and the reason", "serves the slot before", frozenset({"failed"})
    ),
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


DOCUMENTED = ("<!-- the table of lifecycle.py -->\n", "<!-- end of the table -->\n")
"""What encloses the table in a Markdown file."""


def documented(text: str) -> str:
    """A Markdown text with the table in its place. Raises `ValueError` where it has no place for it."""
    begin, end = DOCUMENTED
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"has no lines {begin.strip()} and {end.strip()}")
    return f"{before}{begin}\n{as_markdown()}\n{end}{after}"


def main() -> None:
    """Write the table into the Markdown file named, or print it."""
    if len(sys.argv) < 2:
        sys.stdout.write(as_markdown())
        return
    path = Path(sys.argv[1])
    path.write_text(documented(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
