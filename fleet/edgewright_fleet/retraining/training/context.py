"""`TrainingContext`: what the user's `train(context)` knows of the job, and the few things it asks of it.

The loop is the user's own, in plain PyTorch. One call after each step, `checkpoint`, is where all ranks meet: it
saves when it is due, and stops the run when it must. See `fleet/RETRAINING.md` for a whole function.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from pydantic import JsonValue
from torch import nn
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from edgewright.durable_file import write_durably
from edgewright.errors import ConfigError
from edgewright_fleet.retraining.job import TrainingJob

from . import checkpoint
from .agreement import Agreement
from .notice import Notice
from .progress import ProgressFile
from .state import RANDOM, State, check_state, collect, put_back, random_state, seed_all, set_random_state


class Stopped(BaseException):
    """Ends a function that goes on after it was told to stop. Not an `Exception`, so that none catches it."""


class TrainingContext:
    """What `train(context)` gets. The same function runs on one process, under DDP and under FSDP."""

    rank: int
    """Of this process among all, from 0."""
    local_rank: int
    """Of this process on its node, from 0."""
    world_size: int
    """Processes of the job."""
    device: torch.device
    """The GPU of this process, or the CPU."""
    data: Mapping[str, str]
    """Data sets by name: a path or a URL."""
    parameters: Mapping[str, JsonValue]
    """What the job was given for this function to read."""
    seed: int
    """Python's, NumPy's and PyTorch's generators were seeded with this plus the rank."""
    weights: Path | None
    """The `.safetensors` that training begins with, if any."""
    output: Path
    """The folder for what the function leaves behind."""
    stopping: bool
    """All ranks have agreed to stop and a checkpoint was written: return."""

    def __init__(
        self, job: TrainingJob, *, local_rank: int, restart: int, device: torch.device, notice: Notice
    ) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.local_rank, self.device = local_rank, device
        self.data, self.parameters, self.seed = job.data, job.parameters, job.seed
        self.weights, self.output = job.weights, job.folder / "output"
        self.stopping = False
        self._folder, self._period_s, self._notice = job.folder, job.checkpoint_period_s, notice
        self._progress = ProgressFile(job.folder, restart) if self.rank == 0 else None
        # Groups of their own: what a thread sends for a checkpoint must not mix with what the training sends.
        self._saving_group = dist.new_group(backend="gloo")
        self._agreement = Agreement(dist.new_group(backend="gloo"), self._wishes)
        self._saving: Future[Any] | None = None
        self._saved_s, self._saved_step = time.monotonic(), -1
        self._order: tuple[int, int, torch.Tensor] | None = None

    def distribute(self, module: nn.Module, how: Literal["ddp", "fsdp"] = "ddp") -> nn.Module:
        """The module on this device, replicated (`DistributedDataParallel`) or sharded (`fully_shard`).

        All ranks begin with the weights of rank 0. Anything else that PyTorch offers, call yourself (shard each
        block of a model that fills a GPU): nothing here depends on this call.
        """
        module = module.to(self.device)
        if how == "fsdp":
            for tensor in module.state_dict().values():  # as DDP does
                dist.broadcast(tensor, 0)
            mesh = init_device_mesh(self.device.type, (self.world_size,))
            return fully_shard(module, mesh=mesh)
        return DistributedDataParallel(module, [self.device] if self.device.type == "cuda" else None)

    def batch(self, step: int, size: int, samples: int) -> torch.Tensor:
        """Which of `samples` samples this rank takes at `step` (from 0): its share of a batch of `size` in all.

        Shuffled anew in each epoch, the last incomplete batch left out. It depends on the seed and the step
        alone, so that a resumed run, also one on other ranks, sees the batches that it would have seen.
        Raises `ConfigError` where the batch cannot be shared evenly or is larger than the data.
        """
        if size % self.world_size or not 0 < size <= samples:
            raise ConfigError(
                f"a batch of {size} of {samples} samples does not go to {self.world_size} ranks",
                where="context.batch",
                remedy="take a multiple of the ranks, at most the number of samples",
            )
        epoch, index = divmod(step, samples // size)
        if self._order is None or self._order[:2] != (epoch, samples):
            shuffled = np.random.default_rng((self.seed, epoch)).permutation(samples)
            self._order = epoch, samples, torch.from_numpy(shuffled)
        return self._order[2][index * size : (index + 1) * size][self.rank :: self.world_size]

    def restore(self, state: State) -> int:
        """Put `state` back to the newest whole checkpoint; its step, or 0 where there is none. Collective.

        Raises `ConfigError` where the state does not fit the checkpoint.
        """
        check_state(state)
        self._wait()
        found, damaged = checkpoint.find(self._folder, self._saving_group)
        if self.rank == 0:
            for problem in damaged:
                print(f"checkpoint passed over: {problem}", flush=True)  # noqa: T201 - the rank's log
        if found is None:
            return 0
        loaded = collect(state)
        if same_ranks := found.world_size == self.world_size:
            loaded[RANDOM] = random_state(self.rank, self.device)
        checkpoint.load(loaded, found, self._saving_group)
        put_back(state, loaded)
        if same_ranks:
            set_random_state(self.rank, self.device, loaded[RANDOM])
        else:
            sequence = np.random.SeedSequence((self.seed, self.rank, found.step))
            seed_all(int(sequence.generate_state(1)[0]))
        if self.rank == 0:
            print(f"goes on after step {found.step}", flush=True)  # noqa: T201 - the rank's log
        return found.step

    def checkpoint(self, state: State, step: int) -> None:
        """Call on every rank after each step, `step` being how many are done. Cheap when nothing is due.

        Once the job's period is over, the state is copied here and written while training goes on. When a rank
        was asked to stop, all save at the same step, and `stopping` is true. A function that calls again is ended.
        """
        if self.stopping:
            raise Stopped
        decision = self._agreement.at_step()
        if self._saving is not None and self._saving.done():
            self._settle()
        if decision is None:
            return
        if decision.stop:
            self._save(state, step)
            self._wait()
            self.stopping = True
        elif decision.save:
            self._save(state, step)

    def report(self, step: int, steps: int | None = None, **metrics: Any) -> None:
        """Tell how far the run is: `steps` in all, `loss` above all. Any rank may call; rank 0's is written.

        A metric is a number or a tensor of one, and is only looked at about once a second.
        """
        if self._progress is not None:
            self._progress.report(step, steps, metrics)

    def save(self, module: nn.Module, name: str = "model.safetensors") -> Path:
        """Write the module's whole state to `output`, durably, from rank 0; the path. Collective."""
        path = self.output / name
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        tensors = get_model_state_dict(module, options=options)
        if self.rank == 0:
            # safetensors takes no tensors that share memory, as tied weights do.
            apart = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
            write_durably(path, safetensors.torch.save(apart))
        dist.barrier()
        return path

    def close(self) -> None:
        """Wait for what is being written and sent. The worker calls it."""
        self._wait()
        self._agreement.close()

    def _wishes(self) -> tuple[bool, bool]:
        """Whether this rank was asked to stop, and whether it wants no checkpoint now. Of another thread.

        Rank 0 alone looks at the clock.
        """
        saving = self._saving
        waits = self.rank == 0 and time.monotonic() - self._saved_s < self._period_s
        return self._notice.given, waits or (saving is not None and not saving.done())

    def _save(self, state: State, step: int) -> None:
        self._wait()
        if step == self._saved_step:
            return
        check_state(state)
        whole = {**collect(state), RANDOM: random_state(self.rank, self.device)}
        self._saving = checkpoint.save(whole, self._folder, step, self._saving_group)
        self._saved_s, self._saved_step = time.monotonic(), step

    def _settle(self) -> None:
        """One that could not be written costs no training: the next may be. At the end, `_wait` raises."""
        saving, self._saving = self._saving, None
        if saving is not None and (error := saving.exception()) is not None:
            self._saved_step = -1
            if self.rank == 0:
                print(f"a checkpoint could not be written: {_cause(error)}", flush=True)  # noqa: T201

    def _wait(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None and (error := saving.exception()) is not None:
            raise ConfigError(
                f"the checkpoint could not be written: {_cause(error)}", where=str(self._folder)
            ) from None


def _cause(error: BaseException) -> str:
    """The failure of the first rank that had one, in one line."""
    if isinstance(error, CheckpointException):
        rank, (first, _) = next(iter(error.failures.items()))
        return f"rank {rank}: {' '.join(str(first).split())}"
    return " ".join(str(error).split())
