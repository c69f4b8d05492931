from __future__ import annotations

from typing import Any

import pytest
import torch
import toy_data
import toy_models
from torch import nn

from edgewright.errors import EdgewrightError
from edgewright_converters.source import load_source
from edgewright_converters.source_check import check_takes

SAMPLE = {"image": toy_data.images()[:1]}


class Gives(nn.Module):
    """Gives what a function makes of its input."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forward(self, image: torch.Tensor) -> Any:
        return self.made(image)


def leaves(image: torch.Tensor) -> torch.Tensor:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (
            Gives(torch.fft.fft),
            "its output 'output' is complex64[1, 2, 12, 12], which no target holds",
        ),
        (Gives(lambda x: x[:, :0]), "its output 'output' is float32[1, 0, 12, 12]"),
        (Gives(lambda x: x.double()), "its output 'output' is float64[1, 2, 12, 12]"),
        (Gives(lambda x: {"": x}), "the name of an output is ''"),
        (Gives(lambda x: {"a\x1b[31m": x}), "the name of an output is 'a\\x1b[31m'"),
        (Gives(lambda x: (x, None)), "Gives: the model returns a tuple of Tensor, NoneType; return a tensor"),
        (Gives(lambda x: {"a": [x]}), "Gives: the model returns a dict of list; return a tensor"),
        (Gives(lambda x: ()), "Gives: the model returns a tuple of nothing; return a tensor"),
        (Gives(lambda x: x / 0), "its output 'output' is not finite for the first sample; look for NaN"),
        (Gives(leaves), "does not take image float32[1, 2, 12, 12] (SystemExit: 3)"),
        (toy_models.Small().double(), "its weights are not float32: return model.float()"),
        (toy_models.Small().bfloat16(), "its weights are not float32: return model.float()"),
        (
            toy_models.Small().to("meta"),
            "its weights are on meta: load them, and return the model on the CPU",
        ),
    ],
)
def test_model_that_no_target_could_hold_is_one_line_with_the_remedy(model: nn.Module, problem: str) -> None:
    with pytest.raises(EdgewrightError) as caught:
        check_takes(load_source(model), SAMPLE)
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


def test_model_of_other_floats_is_refused_even_with_such_data() -> None:
    sample = {"image": SAMPLE["image"].astype("float16")}
    with pytest.raises(EdgewrightError, match=r"its weight 'conv\.weight' is float16; return model\.float"):
        check_takes(load_source(toy_models.Small().half()), sample)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_what_training_puts_around_a_model_is_taken_off(wrap: Any) -> None:
    model = load_source(wrap(toy_models.Small()))
    assert model.input_names == ("image",)
    assert check_takes(model, SAMPLE)["output"].shape == (1, 4)


def test_lazy_layer_is_refused_before_it_is_run() -> None:
    with pytest.raises(EdgewrightError, match=r"has lazy layers, .*; call it once before it is returned"):
        load_source(nn.Sequential(nn.LazyLinear(4)))
