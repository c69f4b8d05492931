"""A classifier of 14×14 digits and how it is trained: what a user of retraining writes, and nothing else."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn


def net() -> nn.Module:
    """Two convolutions and a linear layer, untrained."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def train(context: Any) -> None:
    """Adam on what is known so far and on what came from the field."""
    torch.set_num_threads(1)
    files = [np.load(context.data[name]) for name in ("training", "field") if name in context.data]
    x = torch.from_numpy(np.concatenate([file[file.files[0]] for file in files]))
    y = torch.from_numpy(np.concatenate([file["y"] for file in files]))
    module = net()
    if context.weights is not None:
        module.load_state_dict(safetensors.torch.load_file(context.weights))
    module = context.distribute(module)
    optimiser = torch.optim.Adam(module.parameters(), lr=float(context.parameters["rate"]))
    steps = int(context.parameters["steps"])
    state = {"model": module, "optimiser": optimiser}
    for step in range(context.restore(state), steps):
        index = context.batch(step, 64, len(x))
        loss = nn.functional.cross_entropy(module(x[index]), y[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        time.sleep(float(context.parameters.get("pause_s", 0)))
        context.report(step + 1, steps, loss=loss)
        context.checkpoint(state, step + 1)
        if context.stopping:
            return
    context.save(module)
