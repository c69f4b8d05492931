"""Which trials the fault test runs: which fault strikes which device, doing what, at which durable step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.agent.fault_world import Before, Never, Trial, Work

CASES: tuple[tuple[Before, Work], ...] = (
    ("two", "update"),
    ("one", "update"),
    ("new", "update"),
    ("two", "bad update"),
    ("watched", "start"),
    ("two", "roll back by hand"),
)
AT_STEPS = (
    "kill at a durable step",
    "power cut: what was flushed alone survives",
    "power cut: of the rest, some survives",
    "disk error ENOSPC",
    "disk error EIO",
    "disk error EROFS",
)
"""Kinds for every durable step of every case, and after the last."""
AT_STEPS_SHARE = 0.64
"""Of the trials, at most: where there are too few for all kinds, each step is struck by some."""
OTHERS: dict[str, float] = {
    "kill at random": 0.22,
    "bit flipped": 0.18,
    "file truncated": 0.12,
    "registry damaged": 0.07,
    "registry gone": 0.18,
    "disk full": 0.09,
    "disk read-only": 0.08,
    "clock set back": 0.03,
    "broker gone": 0.03,
}
"""Further kinds, with their share of the other trials; the registry goes at each step of an update by turns, the
broker in each phase."""


@dataclass(frozen=True)
class Place:
    """A durable step of a case, or the end after its last."""

    before: Before
    work: Work
    step: int


def plan(at: Sequence[Place], trials: int, seed: int) -> list[Trial]:
    """The kinds at durable steps, each step once before any twice, and the others by their shares, shuffled."""
    chance = random.Random(seed)
    at_steps = []
    for turn in range(len(AT_STEPS)):
        once = [
            Trial(AT_STEPS[(number + turn) % len(AT_STEPS)], place.before, place.work, place.step, seed)
            for number, place in enumerate(at)
        ]
        at_steps += chance.sample(once, len(once))
    del at_steps[round(AT_STEPS_SHARE * trials) :]
    updates = [place for place in at if place.work == "update"]
    chosen, left = at_steps, trials - len(at_steps)
    for kind, share in OTHERS.items():
        by_turns = chance.sample(updates, len(updates))
        for number in range(max(1, round(share * left))):
            before, work = chance.choice(CASES[:3] if kind != "clock set back" else CASES[:1])
            step = chance.randint(1, {"kill at random": 150, "disk full": 20}.get(kind, 80))
            if kind in ("bit flipped", "file truncated"):
                before, work = chance.choice((("two", "start"), ("two", "start"), ("one", "start")))
            elif kind == "broker gone":
                step = number
            elif kind == "registry gone":
                place = by_turns[number % len(by_turns)]
                before, work, step = place.before, place.work, place.step
            chosen.append(Trial(kind, before, work, step, chance.randrange(Never)))
    chance.shuffle(chosen)
    return chosen


def coverage(at: Sequence[Place], trials: Sequence[Trial]) -> str:
    """How much of all that could be struck at durable steps was."""
    struck = {(t.kind, t.before, t.work, t.step) for t in trials if t.kind in AT_STEPS}
    steps = {key[1:] for key in struck}
    return (
        f"{len(steps)} of {len(at)} durable steps were struck, by {len(struck)} of {len(at) * len(AT_STEPS)} "
        "combinations with the six kinds at steps."
    )
