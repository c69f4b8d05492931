"""A training function as a user writes one: two classes of points, DDP or FSDP, and all three random generators.

Each rank notes its losses, to the last bit. Parameters are steps: at those in `saved_at` the ranks wait until
there are one, two ... whole checkpoints; after `die_at` the last rank kills itself, once; at `wait_at` they wait
for the file `go`.
"""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import torch
import torch.distributed as dist
from torch import nn


def train(context):
    torch.set_num_threads(1)
    steps = context.parameters.get("steps", 40)
    points = torch.randn(512, 16, generator=torch.Generator().manual_seed(0)).to(context.device)
    labels = (points[:, :4].sum(1) > 0).long()

    torch.manual_seed(context.seed)  # the same weights on every rank
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))
    model = context.distribute(model, context.parameters.get("how", "ddp"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    torch.manual_seed(context.seed + context.rank)  # another dropout on each

    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done = context.restore(state)
    context.output.mkdir(exist_ok=True)
    with (context.output / f"losses-{context.rank}").open("a") as losses:
        for step in range(done, steps):
            batch = context.batch(step, 32, len(points))
            noise = np.random.normal(size=16) * 0.01 + random.gauss(0, 0.01)
            noisy = points[batch] + torch.tensor(noise, dtype=torch.float32, device=context.device)
            loss = nn.functional.cross_entropy(model(noisy), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            print(step, loss.item().hex(), file=losses, flush=True)
            context.report(step + 1, steps, loss=loss)
            context.checkpoint(state, step + 1)
            if not context.stopping:
                _obstacles(context, state, step + 1)
            if context.stopping:
                return
    context.save(model)


def _obstacles(context, state, step):
    output, parameters = context.output, context.parameters
    checkpoints = output.parent / "checkpoints"
    if step in parameters.get("saved_at", []):
        wanted = 1 + parameters["saved_at"].index(step)
        _hold(context, state, step, lambda: len(list(checkpoints.glob("*/whole.json"))) >= wanted)
    died = output / "died"
    if step == parameters.get("die_at") and context.rank == context.world_size - 1 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if step == parameters.get("wait_at"):
        _hold(context, state, step, (output / "go").exists)


def _hold(context, state, step, until):
    """Stay at this step until every rank has seen something happen, or the job stops."""
    while not context.stopping:
        seen = torch.tensor(int(until()))
        dist.all_reduce(seen, op=dist.ReduceOp.MIN)
        if seen:
            return
        time.sleep(0.02)
        context.checkpoint(state, step)


def hangs(context):
    time.sleep(3600)


def fails(context):
    raise ValueError("the labels are\nmissing")
