"""A run: its chain alone says where it is, one process drives it, and nothing ships that was not found better."""

from __future__ import annotations

import tempfile
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgewright.errors import RetrainingError
from edgewright_fleet.retraining.run import STAGES, Run, begin, names

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def test_runs_are_numbered_and_keep_their_specification(tmp_path: Path) -> None:
    for wanted in ("night-0001", "night-0002"):
        run = begin(tmp_path / "runs", "night", "name: night\n", "by hand", {"kind": "by hand"}, AT)
        assert (run.name, run.spec_path.read_text()) == (wanted, "name: night\n")
    begin(tmp_path / "runs", "night-2", "", "by hand", {}, AT)
    assert names(tmp_path / "runs") == ["night-0001", "night-0002", "night-2-0001"]
    assert names(tmp_path / "runs", "night") == ["night-0001", "night-0002"]
    assert Run(tmp_path / "runs" / "night-0001").next_stage == "data"
    with pytest.raises(RetrainingError, match="is not the folder of a retraining"):
        Run(tmp_path / "runs")


def test_one_process_drives_a_run(tmp_path: Path) -> None:
    run = begin(tmp_path, "night", "", "by hand", {}, AT)
    with run.held(), pytest.raises(RetrainingError, match="another process drives this run"), run.held():
        pass
    with run.held():
        pass


def test_a_run_that_is_held_says_why_whatever_was_done_with_it_since(tmp_path: Path) -> None:
    run = begin(tmp_path, "night", "", "by hand", {}, AT)
    for stage in STAGES[1:5]:
        run.chain.add(stage, f"did {stage}", {}, AT)
    assert (run.standing, run.says) == ("held", "did comparison")
    run.stop("cancelled", AT)
    assert run.says == "cancelled"
    run.resume("resumed by anna", AT)
    assert (run.standing, run.says) == ("held", "did comparison")


class AnyRun(RuleBasedStateMachine):
    """People stop, resume and approve whenever they like, between stages that end as they may."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.run = begin(Path(self.folder.name), "night", "", "by hand", {}, AT)
        self.ships = False
        self.approved = False

    @precondition(lambda self: self.run.next_stage is not None)
    @rule(ships=st.booleans())
    def do_the_next_stage(self, ships: bool) -> None:
        stage = self.run.next_stage
        assert stage is not None
        evidence = {"ships": ships} if stage == "comparison" else {}
        self.ships = self.ships or bool(evidence.get("ships"))
        self.run.chain.add(stage, "did it", evidence, AT)

    @rule()
    def stop(self) -> None:
        if self.run.standing == "done":
            with pytest.raises(RetrainingError, match="has ended"):
                self.run.stop("enough", AT)
        else:
            self.run.stop("enough", AT)
            assert (self.run.standing, self.run.next_stage) == ("stopped", None)

    @rule()
    def resume(self) -> None:
        self.run.resume("go on", AT)
        assert self.run.standing != "stopped"

    @rule()
    def approve(self) -> None:
        if self.run.standing == "held":
            self.run.approve("it is fine", "anna", AT)
            self.approved = True
            assert self.run.next_stage == "release"
        else:
            with pytest.raises(RetrainingError, match="no candidate that waits"):
                self.run.approve("it is fine", "anna", AT)

    @invariant()
    def a_later_process_finds_the_same(self) -> None:
        if hasattr(self, "run"):
            found = Run(self.run.folder)
            assert (found.next_stage, found.standing) == (self.run.next_stage, self.run.standing)

    @invariant()
    def stages_come_once_in_order_and_nothing_ships_unless_found_better_or_approved(self) -> None:
        if hasattr(self, "run"):
            kinds = [link.kind for link in self.run.chain.links if link.kind in STAGES]
            assert kinds == list(STAGES[: len(kinds)])
            assert "release" not in kinds or self.ships or self.approved

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


AnyRun.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestAnyRun = AnyRun.TestCase
