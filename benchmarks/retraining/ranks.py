"""What the ranks of the training benchmark run: `recovered` notes when things happened, `paced` times steps."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from edgewright_fleet.retraining.training import checkpoint
from edgewright_fleet.retraining.training.context import TrainingContext
from edgewright_fleet.retraining.training.launch import read_job
from edgewright_fleet.retraining.training.whole import folder_of, newest_whole, read_whole


def network(width: int) -> nn.Module:
    """A small convolutional classifier of 28 × 28 images; parameters grow as the square of `width`."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


def parameters_of(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def _started_s() -> float:
    """When this process was started, on the clock of `time.time` (Linux `proc(5)`, to 10 ms)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def recovered(context: TrainingContext) -> None:
    """Train; rank 1 kills itself once after a checkpoint. Rank 0 notes when each start came how far."""
    torch.set_num_threads(1)
    marks: dict[str, float] = {"started": _started_s(), "called": time.time()}
    model = context.distribute(network(32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    state = {"model": model, "optimizer": optimizer}
    done = context.restore(state)
    marks |= {"restored": time.time(), "step": done}
    context.output.mkdir(exist_ok=True)
    died = context.output / "died"
    images, labels = torch.randn(512, 1, 28, 28), torch.randint(10, (512,))
    for step in range(done, 1 << 30):
        batch = context.batch(step, 32, len(images))
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        context.report(step + 1, loss=loss)
        context.checkpoint(state, step + 1)
        if context.rank == 0 and step == done:
            marks["trained"] = time.time()
            with (context.output / "starts.jsonl").open("a") as file:
                file.write(json.dumps(marks) + "\n")
        if died.exists():
            return
        if context.rank == 1 and step > 20 and newest_whole(context.output.parent) is not None:
            died.write_text(json.dumps({"at": time.time(), "step": step + 1}))
            os.kill(os.getpid(), signal.SIGKILL)


def paced(context: TrainingContext) -> None:
    """Blocks of the same steps take turns; rank 0 writes the seconds of each as `blocks.json`."""
    torch.set_num_threads(1)
    context.output.mkdir(exist_ok=True)
    pairs = int(context.parameters["pairs"])  # type: ignore[arg-type]
    results = [_paced(context, int(width), pairs) for width in context.parameters["widths"]]  # type: ignore[union-attr,arg-type]
    if context.rank == 0:
        (context.output / "blocks.json").write_text(json.dumps(results))


def _again(context: TrainingContext, period_s: float) -> TrainingContext:
    job = read_job(context.output.parent / "job.json").model_copy(update={"checkpoint_period_s": period_s})
    return TrainingContext(
        job, local_rank=context.local_rank, restart=0, device=context.device, notice=context._notice
    )


def _paced(context: TrainingContext, width: int, pairs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    replicated = context.distribute(network(width))
    alone = network(width)
    optimizers = {module: torch.optim.AdamW(module.parameters(), lr=1e-3) for module in (replicated, alone)}
    state = {"model": replicated, "optimizer": optimizers[replicated]}
    images, labels = torch.randn(512, 1, 28, 28), torch.randint(10, (512,))
    saves: list[int] = []
    # The same rank with three contexts: what it calls, and how often it saves, is all that differs.
    quiet, busy = _again(context, period_s=1e9), _again(context, period_s=1e-9)
    counted = checkpoint.save
    made = width * 10**9  # steps of later models are later, as the newest checkpoints are kept

    def block(module: nn.Module, of: TrainingContext | None) -> tuple[float, float]:
        nonlocal made
        dist.barrier()
        began, used = time.perf_counter(), time.process_time()
        for step in range(steps):
            batch = (torch.arange(16) * 7 + step * 16) % len(images)
            loss = nn.functional.cross_entropy(module(images[batch]), labels[batch])
            optimizers[module].zero_grad()
            loss.backward()
            optimizers[module].step()
            if of is not None:
                made += 1
                of.report(made, loss=loss)
                of.checkpoint(state, made)
        if of is busy:
            of.close()  # what is still being written is this block's
        taken = time.perf_counter() - began, time.process_time() - used
        if of is not None:
            of.close()  # so that its ranks do not meet while the next block runs without it
        return taken

    def counting(*arguments: Any) -> Any:
        saves.append(1)
        return counted(*arguments)

    steps = 5
    block(replicated, quiet), block(alone, None)
    # As many steps as take half a second, in which the ranks meet two or three times; the same on both.
    wanted = torch.tensor(max(2, round(5 * 0.5 / block(replicated, None)[0])))
    dist.broadcast(wanted, 0)
    steps = int(wanted)
    kinds: dict[str, Callable[[], tuple[float, float]]] = {
        "bare": lambda: block(replicated, None),
        "context": lambda: block(replicated, quiet),
        "alone": lambda: block(alone, None),
        "saving": lambda: block(replicated, busy),
    }
    checkpoint.save = counting  # type: ignore[assignment]
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    processor_s: dict[str, list[float]] = {kind: [] for kind in kinds}
    for pair in range(pairs):
        # Whoever follows another model finds cold caches: bare and context do so in turns.
        order = ["saving", "alone", *(["bare", "context"] if pair % 2 else ["context", "bare"])]
        for kind in order:
            if kind == "saving" and pair % 4:
                continue
            taken, used = kinds[kind]()
            seconds[kind].append(taken)
            processor_s[kind].append(used)
    checkpoint.save = counted
    newest = newest_whole(context.output.parent) or 0
    whole = read_whole(folder_of(context.output.parent, newest), newest)
    gradients = parameters_of(alone) * 4
    return {
        "parameters": parameters_of(alone),
        "steps": steps,
        "seconds": seconds,
        "processor_s": processor_s,
        "saves": len(saves),
        "checkpoint_bytes": sum(file.size_bytes for file in whole.files.values()),
        "all_reduce_bytes": gradients,
        "all_reduce_s": _all_reduce_s(gradients),
        "stage_bytes_per_s": _stage_bytes_per_s(1 << 27),
    }


def _all_reduce_s(size_bytes: int) -> float:
    """Seconds of one all-reduce of that many bytes with nothing beside it: the median of 30."""
    buffer = torch.ones(size_bytes // 4)
    taken = []
    for _ in range(30):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(buffer)
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def _stage_bytes_per_s(size_bytes: int) -> float:
    """How fast that many bytes are copied in memory: the median of ten."""
    buffer = torch.ones(size_bytes // 4)
    taken = []
    for _ in range(10):
        began = time.perf_counter()
        buffer.clone()
        taken.append(time.perf_counter() - began)
    return size_bytes / sorted(taken)[len(taken) // 2]
