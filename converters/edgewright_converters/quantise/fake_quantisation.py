"""Fake quantisation: tensors that hold what the integers of an INT8 model stand for, and have gradients.

Forward, each value is exactly the one that `grid` rounds it to. Backward, rounding counts as nothing and clipping
as what it is: the straight-through estimator (Bengio et al. 2013, "Estimating or Propagating Gradients Through
Stochastic Neurons", section 4). The step of an activation's grid has the gradient of Esser et al. 2020, "Learned
Step Size Quantization", equation 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgewright_converters.quantise.grid import LEAST_SCALE, STEPS, WEIGHT_MAX


def on_steps(value: Tensor, scale: float) -> Tensor:
    """An activation rounded to whole steps and never clipped, with a gradient for the value."""
    return torch.round(value.detach() * (1.0 / scale)) * scale + (value - value.detach())


def on_grid(value: Tensor, scale: Tensor | float, zero_point: int) -> Tensor:
    """An activation as 8 bits hold it: `ActivationGrid.rounded`, with gradients for the value and the scale."""
    step = torch.as_tensor(scale, dtype=value.dtype, device=value.device)
    low, high = -zero_point, STEPS - zero_point
    steps = value * (1.0 / step)
    # Added as a difference with itself, so that not even a last bit of the rounded value changes.
    inside = torch.clamp(steps, low, high)
    code = torch.clamp(torch.round(steps), low, high).detach() + (inside - inside.detach())
    return code * step


def weight_on_grid(weight: Tensor, channel_axis: int) -> Tensor:
    """A weight as INT8 holds it: `grid.rounded_weight`. The scale follows the largest weight of each channel."""
    with torch.no_grad():
        axes = [axis for axis in range(weight.ndim) if axis != channel_axis]
        largest = weight.abs().amax(axes, keepdim=True)
        scale = torch.where(largest > WEIGHT_MAX * LEAST_SCALE, largest / WEIGHT_MAX, 1.0)
        rounded = torch.round(weight / scale) * scale
    return rounded + (weight - weight.detach())
