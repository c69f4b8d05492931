from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from edgewright_converters.fine_tuning.distillation import distillation_loss, output_error

SEEDS = st.integers(0, 1000)


def scores(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.randint(0, 4, (6,), generator=generator)


@given(SEEDS, st.floats(0.5, 8), st.floats(-5, 5))
def test_student_like_its_teacher_has_nothing_to_learn_and_any_other_has(
    seed: int, temperature: float, shift: float
) -> None:
    student, teacher, _ = scores(seed)
    assert float(distillation_loss(teacher + shift, teacher, temperature=temperature)) == pytest.approx(
        0, abs=1e-9
    )
    assert float(distillation_loss(student, teacher, temperature=temperature)) > 0


@given(SEEDS)
def test_labels_take_their_share_of_the_loss(seed: int) -> None:
    student, teacher, labels = scores(seed)
    soft, hard = distillation_loss(student, teacher), functional.cross_entropy(student, labels)
    mixed = distillation_loss(student, teacher, labels, label_share=0.25)
    assert float(mixed) == pytest.approx(0.75 * float(soft) + 0.25 * float(hard))


def test_softening_keeps_the_size_of_gradients() -> None:
    """Why the square of the temperature is in it: Hinton et al. 2015, section 2."""
    student, teacher, _ = scores(1)
    sizes = []
    for temperature in (20.0, 40.0):
        x = student.clone().requires_grad_()
        distillation_loss(x, teacher, temperature=temperature).backward()
        assert x.grad is not None
        sizes.append(float(x.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_error_of_outputs_is_noise_to_signal_and_leaves_integers_out() -> None:
    teacher = {"a": torch.full((2, 3), 2.0), "b": torch.ones(2, 1), "index": torch.tensor([3, 4])}
    student = {"a": torch.full((2, 3), 2.2), "b": torch.full((2, 1), 0.5), "index": torch.tensor([0, 0])}
    assert float(output_error(student, teacher)) == pytest.approx(0.04 / 4 + 0.25)
