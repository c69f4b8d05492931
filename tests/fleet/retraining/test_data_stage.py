"""The stage `data`: what is frozen for a run, and what an attempt that was cut short leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgewright.object_store import open_store
from edgewright_fleet.retraining.field_data.catalogue import find_samples
from edgewright_fleet.retraining.loop import by_hand
from edgewright_fleet.retraining.run import Run
from edgewright_fleet.retraining.spec import RetrainingSpec
from edgewright_fleet.retraining.stages.data import gather
from edgewright_fleet.retraining.stages.step import Show, Tools
from edgewright_fleet.retraining.stages.training import job_of
from fleet.retraining.field_data.stored_samples import NOW, labels, put
from fleet.retraining.test_look import spec


def tools(show: Show = lambda *_: None) -> Tools:
    def never(*_: object) -> tuple[str, str]:
        raise AssertionError("the stage asked for what it does not need")

    return Tools(never, show, never, now=lambda: NOW)  # type: ignore[arg-type]


def begun(folder: Path, held_out_share: float) -> tuple[Run, RetrainingSpec]:
    """A run with twenty labelled samples, in which an earlier attempt was cut short before its link."""
    root = folder / "samples"
    root.mkdir()
    labels(folder, [f"{put(root, number)},{number % 3},anna" for number in range(20)])
    wanted = spec(folder, {})
    wanted = wanted.model_copy(
        update={"data": wanted.data.model_copy(update={"held_out_share": held_out_share})}
    )
    run = by_hand(wanted, "", "anna", NOW)
    (run.folder / "field").mkdir()
    (run.folder / "field" / "half").touch()
    np.savez(run.folder / "field.npz", x=np.zeros(1), y=np.zeros(1))
    return run, wanted


def test_samples_are_frozen_anew_over_what_an_attempt_that_was_cut_short_left(tmp_path: Path) -> None:
    run, wanted = begun(tmp_path, 0.4)
    step = gather(run, wanted, tools())
    counts = step.evidence["field_counts"]
    assert isinstance(counts, dict) and sum(counts.values()) == 20
    assert len(np.load(run.folder / "field.npz")["y"]) == counts["training"]
    assert not (run.folder / "field" / "half").exists()


@pytest.mark.parametrize("why", ["every sample is held out", "the labels were taken away"])
def test_field_data_of_an_attempt_that_was_cut_short_is_not_trained_on(tmp_path: Path, why: str) -> None:
    held_out = why == "every sample is held out"
    run, wanted = begun(tmp_path, 0.999999 if held_out else 0.4)
    if not held_out:
        (tmp_path / "labels.csv").unlink()
    gather(run, wanted, tools())
    assert not (run.folder / "field.npz").exists()
    assert "field" not in job_of(run, wanted).data
    assert ("field_set" in job_of(run, wanted).data) == held_out


def test_it_says_how_far_it_is_a_hundred_times_at_most(tmp_path: Path) -> None:
    run, wanted = begun(tmp_path, 0.4)
    for number in range(20, 350):
        put(tmp_path / "samples", number)
    rows = [f"{found.digest},1,anna" for found in find_samples(open_store(str(tmp_path / "samples")))]
    labels(tmp_path, rows)
    said: list[tuple[int, int]] = []
    gather(run, wanted, tools(lambda done, of, *_: said.append((done, of))))
    assert said[0] == (3, 350) and said[-1] == (349, 350) and len(said) == 100
