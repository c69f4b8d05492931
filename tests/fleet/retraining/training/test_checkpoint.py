"""Checkpoints of a real module: which are whole, which are passed over, and what is never executed."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed import checkpoint as dcp

from edgewright.errors import ConfigError
from edgewright_fleet.retraining.training import checkpoint
from edgewright_fleet.retraining.training.state import (
    check_state,
    collect,
    put_back,
    random_state,
    seed_all,
    set_random_state,
)
from edgewright_fleet.retraining.training.whole import (
    KEPT,
    declare_whole,
    folder_of,
    stored_file,
    whole_steps,
)

CPU = torch.device("cpu")


def trained(steps: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        schedule.step()
    return {"model": model, "optimizer": optimizer, "schedule": schedule}


def write(folder: Path, step: int, group: dist.ProcessGroup) -> Path:
    checkpoint.save(collect(trained(step)), folder, step, group).result()
    return folder_of(folder, step)


def restored(folder: Path, group: dist.ProcessGroup) -> tuple[int | None, list[str], torch.Tensor]:
    state = trained(0)
    found, damaged = checkpoint.find(folder, group)
    if found is not None:
        loaded = collect(state)
        checkpoint.load(loaded, found, group)
        put_back(state, loaded)
    return found and found.step, damaged, state["model"].weight.detach()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(data)


def test_a_state_comes_back_with_its_optimiser_and_schedule(tmp_path: Path, alone: dist.ProcessGroup) -> None:
    write(tmp_path, 3, alone)
    state, expected = trained(0), trained(3)
    found, damaged = checkpoint.find(tmp_path, alone)
    assert found is not None
    assert (found.step, found.world_size, damaged) == (3, 1, [])
    loaded = collect(state)
    checkpoint.load(loaded, found, alone)
    put_back(state, loaded)
    assert torch.equal(state["model"].weight, expected["model"].weight)
    assert state["schedule"].state_dict() == expected["schedule"].state_dict()
    for mine, theirs in zip(
        state["optimizer"].state.values(), expected["optimizer"].state.values(), strict=True
    ):
        assert all(torch.equal(mine[name], theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


def test_what_is_trained_after_the_call_is_not_in_the_checkpoint(
    tmp_path: Path, alone: dist.ProcessGroup
) -> None:
    state = trained(3)
    saving = checkpoint.save(collect(state), tmp_path, 3, alone)
    with torch.no_grad():
        state["model"].weight.zero_()
    saving.result()
    assert torch.equal(restored(tmp_path, alone)[2], trained(3)["model"].weight)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: flip(folder / "__0_0.distcp", 700), "was changed since it was written"),
        (lambda folder: flip(folder / ".metadata", 99), "was changed since it was written"),
        (lambda folder: os.truncate(folder / "__0_0.distcp", 100), "has 100 bytes"),
        (lambda folder: (folder / "__0_0.distcp").unlink(), "No such file"),
        (lambda folder: (folder / "whole.json").write_bytes(b"{"), "Invalid JSON"),
        (lambda folder: shutil.copy(folder.parent / "step-000000000003" / "whole.json", folder), "of step 3"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: Callable[[Path], object], says: str, tmp_path: Path, alone: dist.ProcessGroup
) -> None:
    write(tmp_path, 3, alone)
    damage(write(tmp_path, 5, alone))
    step, damaged, weight = restored(tmp_path, alone)
    assert step == 3
    assert says in damaged[0]
    assert "step-000000000005" in damaged[0]
    assert torch.equal(weight, trained(3)["model"].weight)
    assert restored(tmp_path, alone)[:2] == (3, []), "it was counted again"
    write(tmp_path, 4, alone)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000000000003",
        "step-000000000004",
    ]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["__0_0.distcp", ".metadata"]), at=st.integers(0, 1 << 20))
def test_no_flipped_bit_is_loaded(name: str, at: int, tmp_path: Path, alone: dist.ProcessGroup) -> None:
    folder = folder_of(tmp_path, 3)
    if not folder.exists():
        write(tmp_path, 3, alone)
    flip(folder / name, at)
    assert restored(tmp_path, alone)[0] is None


def test_one_that_was_broken_off_is_none_and_is_written_anew(
    tmp_path: Path, alone: dist.ProcessGroup
) -> None:
    folder = write(tmp_path, 3, alone)
    (folder / "whole.json").unlink()
    (folder / "__7_0.distcp").write_bytes(b"of a rank that is no more")
    assert restored(tmp_path, alone)[:2] == (None, [])
    write(tmp_path, 3, alone)
    assert restored(tmp_path, alone)[0] == 3
    assert not (folder / "__7_0.distcp").exists()


def test_the_newest_are_kept(tmp_path: Path, alone: dist.ProcessGroup) -> None:
    for step in range(1, KEPT + 3):
        write(tmp_path, step, alone)
    assert whole_steps(tmp_path) == list(range(KEPT + 2, 2, -1))
    assert len(list((tmp_path / "checkpoints").iterdir())) == KEPT


def test_a_full_disk_is_an_error_and_leaves_no_whole_checkpoint(
    tmp_path: Path, alone: dist.ProcessGroup
) -> None:
    (tmp_path / "checkpoints").write_bytes(b"a file where a folder must be")
    with pytest.raises(dcp.CheckpointException, match="Not a directory"):
        write(tmp_path, 3, alone)


class Runs:
    """Would run a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)

    def __deepcopy__(self, memo: dict[int, Any]) -> Runs:
        return self


def vouch(folder: Path) -> None:
    """Give files that were changed the right digests, as someone who writes the whole folder can."""
    files = {path.name: stored_file(path) for path in folder.iterdir() if path.name != "whole.json"}
    declare_whole(folder, 3, 1, files)


def test_an_index_that_names_other_classes_is_not_unpickled(tmp_path: Path, alone: dist.ProcessGroup) -> None:
    folder = write(tmp_path, 3, alone)
    (folder / ".metadata").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    vouch(folder)
    with pytest.raises(ConfigError, match=r"system does not belong into the index"):
        restored(tmp_path, alone)
    assert not (tmp_path / "ran").exists()


def test_a_value_that_would_run_code_is_not_unpickled(tmp_path: Path, alone: dist.ProcessGroup) -> None:
    class Evil:
        def state_dict(self) -> dict[str, Any]:
            return {"value": Runs(tmp_path / "ran")}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    state = {"evil": Evil()}
    checkpoint.save(collect(state), tmp_path, 3, alone).result()
    found, _ = checkpoint.find(tmp_path, alone)
    assert found is not None
    with pytest.raises(ConfigError, match="Weights only load failed"):
        checkpoint.load(collect(state), found, alone)
    assert not (tmp_path / "ran").exists()


def test_another_model_is_one_line(tmp_path: Path, alone: dist.ProcessGroup) -> None:
    write(tmp_path, 3, alone)
    found, _ = checkpoint.find(tmp_path, alone)
    assert found is not None
    for model in (nn.Linear(5, 2), nn.Sequential(nn.Linear(4, 2))):
        with pytest.raises(ConfigError, match=r"does not fit what train\(\) restores") as error:
            checkpoint.load(collect({"model": model}), found, alone)
        assert "\n" not in str(error.value)


def test_what_cannot_be_put_back_is_refused_by_name() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="'epoch': a int cannot be put back"):
        check_state({"model": model, "epoch": 3})
    with pytest.raises(ConfigError, match="'optimizer': no module in the state"):
        check_state({"optimizer": torch.optim.SGD(model.parameters()), "other": nn.Linear(2, 2)})
    with pytest.raises(ConfigError, match="'random': this name is taken"):
        check_state({"random": model})


@given(seed=st.integers(0, 2**40), drawn=st.integers(0, 1300))
@settings(max_examples=25)
def test_generators_go_on_where_they_were(seed: int, drawn: int) -> None:
    seed_all(seed)
    [random.gauss(0, 1) for _ in range(drawn)]
    np.random.normal(size=drawn)
    torch.randn(drawn)
    stream = io.BytesIO()
    torch.save(random_state(3, CPU), stream)

    def draw() -> list[float]:
        return [
            random.gauss(0, 1),
            random.random(),
            np.random.normal(),
            np.random.rand(),
            float(torch.randn(1)),
        ]

    expected = draw()
    seed_all(seed + 1)
    stream.seek(0)
    set_random_state(3, CPU, torch.load(stream, weights_only=True))
    assert draw() == expected
