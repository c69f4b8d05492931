"""The loss of a student that learns from the float model, its teacher, and from labels where there are any."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 2.0
LABEL_SHARE = 0.3


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = TEMPERATURE,
    label_share: float = LABEL_SHARE,
) -> Tensor:
    """Of scores, one row a sample and one column a class, before any softmax.

    Without labels the Kullback-Leibler divergence of the student's classes from the teacher's, both softened by
    `temperature`, times its square (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section
    2). With labels, `label_share` of it is the cross-entropy with them. The mean over the samples.
    """
    soft = temperature**2 * functional.kl_div(
        functional.log_softmax(student / temperature, 1),
        functional.log_softmax(teacher / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    if labels is None:
        return soft
    return (1 - label_share) * soft + label_share * functional.cross_entropy(student, labels)


def output_error(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Noise to signal of each output, summed: what is left to learn of a model that is no classifier."""
    errors = [
        functional.mse_loss(student[name], value) / value.square().mean().clamp_min(1e-12)
        for name, value in teacher.items()
        if value.is_floating_point()
    ]
    return torch.stack(errors).sum()
