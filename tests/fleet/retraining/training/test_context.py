"""What a training function is given, on one real process."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgewright.errors import ConfigError, EdgewrightError
from edgewright_fleet.retraining.training.agreement import PERIOD_S
from edgewright_fleet.retraining.training.context import Stopped, TrainingContext
from edgewright_fleet.retraining.training.progress import figures
from edgewright_fleet.retraining.training.whole import newest_whole

from .conftest import LIMIT_S, job_in


class Asked:
    """A notice that a test gives."""

    given = False


def context_in(folder: Path, notice: Any, **fields: Any) -> TrainingContext:
    job = job_in(folder, **fields)
    return TrainingContext(job, local_rank=0, restart=0, device=torch.device("cpu"), notice=notice)


def calls(for_s: float) -> Iterator[int]:
    """Steps of some milliseconds, for a while."""
    until_s = time.monotonic() + for_s
    for step in itertools.count(1):
        if time.monotonic() > until_s:
            return
        time.sleep(0.005)
        yield step


def test_a_checkpoint_is_written_when_its_period_is_over_and_not_before(
    tmp_path: Path, alone: dist.ProcessGroup
) -> None:
    state = {"model": nn.Linear(2, 2)}
    context = context_in(tmp_path, Asked(), checkpoint_period_s=3600)
    for step in calls(3 * PERIOD_S):
        context.checkpoint(state, step)
    context.close()
    assert newest_whole(tmp_path) is None
    context = context_in(tmp_path, Asked(), checkpoint_period_s=1e-9)
    for step in calls(LIMIT_S):
        context.checkpoint(state, step)
        if newest_whole(tmp_path) is not None:
            break
    else:
        pytest.fail("no checkpoint was written")
    context.close()


def test_a_stop_saves_this_step_and_a_function_that_goes_on_is_ended(
    tmp_path: Path, alone: dist.ProcessGroup
) -> None:
    notice, state = Asked(), {"model": nn.Linear(2, 2)}
    context = context_in(tmp_path, notice, checkpoint_period_s=3600)
    context.checkpoint(state, 1)
    notice.given = True
    for step in calls(LIMIT_S):
        context.checkpoint(state, step)
        if context.stopping:
            break
    else:
        pytest.fail("a stop was not agreed")
    assert newest_whole(tmp_path) == step
    with pytest.raises(Stopped):
        context.checkpoint(state, step + 1)


def test_a_checkpoint_that_cannot_be_written_costs_no_training_but_a_stop_says_so(
    tmp_path: Path, alone: dist.ProcessGroup, capfd: pytest.CaptureFixture[str]
) -> None:
    notice, state = Asked(), {"model": nn.Linear(2, 2)}
    context = context_in(tmp_path, notice, checkpoint_period_s=1e-9)
    (tmp_path / "checkpoints").touch()
    said = ""
    for step in calls(LIMIT_S):
        context.checkpoint(state, step)
        said += capfd.readouterr().out
        if "could not be written" in said:
            break
    assert "a checkpoint could not be written: rank 0: " in said
    notice.given = True
    with pytest.raises(EdgewrightError, match="the checkpoint could not be written"):
        for step in calls(LIMIT_S):
            context.checkpoint(state, step)


def test_the_model_is_saved_whole_also_with_tied_weights(tmp_path: Path, alone: dist.ProcessGroup) -> None:
    context = context_in(tmp_path, Asked())
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    path = context.save(context.distribute(model, "ddp"))
    tensors = safetensors.torch.load_file(path)
    assert set(tensors) == {"0.weight", "1.weight"}
    assert torch.equal(tensors["1.weight"], model[0].weight)
    nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)).load_state_dict(tensors)


def test_progress_is_told_with_a_loss_that_is_a_tensor(tmp_path: Path, alone: dist.ProcessGroup) -> None:
    context = context_in(tmp_path, Asked())
    context.report(3, 3, loss=torch.tensor(0.5, requires_grad=True), accuracy=1)
    told = figures(job_in(tmp_path))
    assert (told["step"], told["steps"], told["loss"], told["restarts"]) == (3, 3, 0.5, 0)


class FakeRanks(TrainingContext):
    """`batch` alone, on any number of ranks: it needs nothing else of them."""

    def __init__(self, rank: int, world_size: int, seed: int) -> None:
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self._order = None


@given(
    ranks=st.integers(1, 5),
    share=st.integers(1, 4),
    batches=st.integers(1, 6),
    rest=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_an_epoch_shows_each_sample_at_most_once_and_batches_do_not_depend_on_the_ranks(
    ranks: int, share: int, batches: int, rest: int, seed: int
) -> None:
    size = ranks * share
    samples = size * batches + min(rest, size - 1)
    one = FakeRanks(0, 1, seed)
    shown: list[int] = []
    for step in range(batches):
        parts = [FakeRanks(rank, ranks, seed).batch(step, size, samples).tolist() for rank in range(ranks)]
        together = sorted(index for part in parts for index in part)
        assert together == sorted(one.batch(step, size, samples).tolist())
        shown += together
    assert len(set(shown)) == len(shown) == size * batches
    assert set(shown) <= set(range(samples))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    for size, samples in ((3, 10), (12, 10), (0, 10)):
        with pytest.raises(ConfigError, match="take a multiple of the ranks"):
            FakeRanks(0, 2, 0).batch(0, size, samples)


def test_the_function_in_the_readme_trains(tmp_path: Path, alone: dist.ProcessGroup) -> None:
    text = (Path(__file__).parents[4] / "fleet" / "RETRAINING.md").read_text()
    code = next(
        part for part in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def train(context)" in part
    )
    names: dict[str, Any] = {}
    exec(compile(code, "RETRAINING.md", "exec"), names)
    labels = np.arange(256) % 10
    images = (np.random.default_rng(0).normal(size=(256, 8, 8)) + labels[:, None, None]).astype(np.float32)
    np.savez(tmp_path / "digits.npz", x=images, y=labels)
    given = {"data": {"training": str(tmp_path / "digits.npz")}, "parameters": {"steps": 60, "rate": 0.01}}
    names["train"](context_in(tmp_path / "first", Asked(), **given))
    loss = figures(job_in(tmp_path / "first"))["loss"]
    assert loss < 2.0, "no better than a guess, ln 10 = 2.3"

    weights = tmp_path / "first" / "output" / "model.safetensors"
    given["parameters"] = {"steps": 1, "rate": 0.01}
    names["train"](context_in(tmp_path / "second", Asked(), weights=weights, **given))
    assert figures(job_in(tmp_path / "second"))["loss"] < 2.0, "it did not begin with the weights"
