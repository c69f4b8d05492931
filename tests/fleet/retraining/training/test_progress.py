"""Lines of progress: few, readable after a crash, and honest about what is no number."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgewright_fleet.retraining.training.progress import FILE, ProgressFile, figures, progress_lines

from .conftest import job_in


def test_a_thousand_steps_in_a_moment_are_few_lines_and_the_last_step_is_one(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path, 0, period_s=3600)
    for step in range(1, 1001):
        progress.report(step, 1000, {"loss": 1 / step})
    assert [line.step for line in progress_lines(tmp_path)] == [None, 1, 1000]
    last = progress_lines(tmp_path)[-1]
    assert last.left_s == 0
    assert last.steps_per_s is not None


def test_time_left_follows_from_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    progress = ProgressFile(tmp_path, 0)
    for step in range(0, 50, 10):
        progress.report(step, 100, {})
        now_s += 5.0
    assert progress_lines(tmp_path)[-1].left_s == pytest.approx(60 / 2)


def test_a_line_that_a_crash_broke_off_is_left_out(tmp_path: Path) -> None:
    ProgressFile(tmp_path, 0).report(7, None, {"loss": 2})
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"at":"2026-')
    assert figures(job_in(tmp_path))["step"] == 7
    ProgressFile(tmp_path, 1)
    told = figures(job_in(tmp_path))
    assert (told["step"], told["restarts"], told["steps"]) == (7, 1, None)


def test_a_loss_that_is_no_number_is_written_and_is_no_loss(tmp_path: Path) -> None:
    ProgressFile(tmp_path, 0).report(7, None, {"loss": math.nan, "norm": math.inf})
    assert progress_lines(tmp_path)[-1].metrics == {"loss": "nan", "norm": "inf"}
    assert figures(job_in(tmp_path))["loss"] is None


def test_a_job_that_has_said_nothing_has_no_figures(tmp_path: Path) -> None:
    assert figures(job_in(tmp_path / "none")) == {"restarts": 0, "checkpoint_step": None}


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path, 0, period_s=0)
    for step in range(2000):
        progress.report(step, None, {"loss": 1.0})
    lines = progress_lines(tmp_path)
    assert lines[-1].step == 1999
    assert len(lines) < 1000
