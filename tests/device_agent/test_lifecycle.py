from __future__ import annotations

import typing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgewright.twin import Phase
from edgewright_agent.lifecycle import MEANING, RESTING, TABLE, Event, as_markdown, documented, step

PHASES = typing.get_args(Phase)
EVENTS = typing.get_args(Event)


def exits(phase: Phase) -> dict[Event, Phase]:
    return {event: after for (before, event), after in TABLE.items() if before == phase}


def test_every_phase_of_the_twin_contract_has_a_meaning_and_a_way_out() -> None:
    assert set(MEANING) == set(PHASES)
    assert all(exits(phase) for phase in PHASES)


def test_every_event_is_used_and_nothing_leads_outside_the_contract() -> None:
    assert {event for _, event in TABLE} == set(EVENTS)
    assert set(TABLE.values()) | {"idle"} == set(PHASES)


def test_a_resting_phase_takes_a_new_desired_state() -> None:
    assert all(step(phase, "desired") == "downloading" for phase in RESTING)


def test_only_a_watched_release_is_ever_committed_anew() -> None:
    ways = {key for key, after in TABLE.items() if after == "committed"}
    satisfied = {(phase, "satisfied") for phase in ("committed", "failed", "downloading")}
    assert ways == {("watching", "kept"), *satisfied}


def test_no_phase_is_a_dead_end_from_each_a_good_wish_comes_to_be_kept() -> None:
    """With nothing but what the device does itself and one new wish, and after a power cut in it as well."""
    good = ["desired", "fetched", "verified", "proved", "switched", "kept"]

    def ends_committed(phase: Phase) -> bool:
        # What is under way ends by itself, well or badly; then the wish is taken.
        for _ in PHASES:
            if phase in RESTING:
                break
            phase = step(phase, "restored" if phase == "rolling-back" else "failed")
        for event in good:
            phase = step(phase, event)
        return phase == "committed"

    assert all(ends_committed(phase) for phase in PHASES)
    assert all(ends_committed(start) for phase in PHASES for start in MEANING[phase].starts_in)


def test_a_start_finds_the_device_at_rest() -> None:
    assert all(meaning.starts_in and meaning.starts_in <= RESTING for meaning in MEANING.values())


def test_by_hand_a_device_at_rest_goes_back_and_is_then_told_why() -> None:
    undone = {before: after for (before, event), after in TABLE.items() if event == "undone"}
    assert undone == {"committed": "rolling-back", "failed": "rolling-back"}


def test_the_readme_holds_the_table_as_it_is() -> None:
    """To write it anew: `python -m edgewright_agent.lifecycle device_agent/README.md`."""
    text = (Path(__file__).parents[2] / "device_agent" / "README.md").read_text(encoding="utf-8")
    assert documented(text) == text


def test_a_text_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="has no lines"):
        documented("# device_agent\n")


def test_an_error_once_the_pointer_may_have_changed_rolls_back() -> None:
    assert step("switching", "failed") == step("watching", "failed") == "rolling-back"
    assert step("rolling-back", "restored") == "failed"


def test_an_event_that_a_phase_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match="an update that is idle knows no event 'kept'"):
        step("idle", "kept")


def test_the_documentation_has_a_row_for_every_phase() -> None:
    assert len(as_markdown().splitlines()) == len(PHASES) + 2


class Walk(RuleBasedStateMachine):
    """Any events that the table allows, in any order: the device always comes to rest again."""

    def __init__(self) -> None:
        super().__init__()
        self.phase: Phase = "idle"
        self.since_rest = 0

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(sorted(exits(self.phase))))
        before, self.phase = self.phase, step(self.phase, event)
        if self.phase == before:  # a registry that is away, for as long as it is
            return
        self.since_rest = 0 if self.phase in RESTING else self.since_rest + 1

    @invariant()
    def an_update_ends(self) -> None:
        assert self.since_rest <= len(set(PHASES) - RESTING)

    @invariant()
    def a_failure_leads_to_rest(self) -> None:
        phase, steps = self.phase, 0
        while phase not in RESTING:
            phase = step(phase, "restored" if phase == "rolling-back" else "failed")
            steps += 1
        assert steps <= 2


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
