"""Real ranks that decide together, at steps of any length: all learn the same at the same call."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from conftest import free_port
from edgewright_fleet.retraining.training import agreement
from edgewright_fleet.retraining.training.agreement import MOST_AHEAD, Agreement

from .conftest import LIMIT_S

RANKS, CALLS = 3, 400


def joined(rank: int, port: int) -> dist.ProcessGroup:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    return dist.new_group(backend="gloo")


def decide_at_random(rank: int, port: int, folder: str) -> None:
    """Steps of nought to twenty milliseconds; each rank holds now and then, and rank 1 stops in the end."""
    agreement.PERIOD_S = 0.01
    chance = random.Random(rank)
    wants = {"stop": False, "hold": True}
    together = Agreement(joined(rank, port), lambda: (wants["stop"], wants["hold"]))
    learnt = []
    for call in range(1, CALLS + 1):
        wants["hold"] = chance.random() < 0.3
        wants["stop"] = rank == 1 and call > CALLS - 100
        if chance.random() < 0.3:
            time.sleep(chance.random() * 0.02)
        decision = together.at_step()
        if decision is not None:
            learnt.append([call, decision.stop, decision.save])
    together.close()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(learnt))
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_ranks_learn_the_same_at_the_same_call(tmp_path: Path) -> None:
    mp.spawn(decide_at_random, (free_port(), str(tmp_path)), nprocs=RANKS)
    first, *others = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(RANKS)]
    assert all(other == first for other in others)
    assert any(save and not stop for _, stop, save in first), "no checkpoint was agreed"
    assert any(stop for _, stop, _ in first), "the stop was not agreed"
    assert not any(stop for call, stop, _ in first if call <= CALLS - 100)


def stop_once_steps_are_slow(rank: int, port: int, folder: str) -> None:
    """Steps of a millisecond become steps of half a second, and then rank 0 is asked to stop."""
    wants = {"stop": False}
    together = Agreement(joined(rank, port), lambda: (wants["stop"], True))
    for _ in range(1000):
        time.sleep(0.001)
        assert together.at_step() is None
    slow = 0
    while True:
        time.sleep(0.5)
        slow += 1
        wants["stop"] = rank == 0
        if (decision := together.at_step()) is not None:
            assert decision.stop and not decision.save
            break
    together.close()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(slow))
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_stop_is_agreed_soon_although_steps_have_become_slow(tmp_path: Path) -> None:
    mp.spawn(stop_once_steps_are_slow, (free_port(), str(tmp_path)), nprocs=RANKS)
    slow = {json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(RANKS)}
    assert len(slow) == 1 and slow.pop() <= MOST_AHEAD + 1


def outlive_a_rank(rank: int, port: int, folder: str) -> None:
    """Rank 2 is killed at its fiftieth call; the others go on calling."""
    together = Agreement(joined(rank, port), lambda: (False, True))
    for call in range(1 << 20):
        if rank == 2 and call == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.005)
        try:
            assert together.at_step() is None
        except RuntimeError as error:
            (Path(folder) / f"{rank}.txt").write_text(str(error))
            os._exit(0)


@pytest.mark.slow
def test_a_rank_that_is_gone_is_told_to_the_others(tmp_path: Path) -> None:
    spawn, port = mp.get_context("spawn"), free_port()
    ranks = [spawn.Process(target=outlive_a_rank, args=(rank, port, str(tmp_path))) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    try:
        for process in ranks:
            process.join(LIMIT_S)
        assert [process.exitcode for process in ranks] == [0, 0, -signal.SIGKILL]
        assert all((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    finally:
        for process in ranks:
            process.kill()
