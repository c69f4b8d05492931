from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import toy_models
from safetensors.torch import save_file

from edgewright.errors import ConversionError
from edgewright_converters.source import load_source
from edgewright_converters.weights import load_weights


class Trained(toy_models.Small):
    """Weights that no fresh model has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_model_that_code_builds_gets_the_weights_of_the_file(tmp_path: Path, suffix: str) -> None:
    trained = weights_of(Trained())
    path = tmp_path / f"weights{suffix}"
    save_file(trained, path) if suffix == ".safetensors" else torch.save(trained, path)
    model = load_source("toy_models:small", path)
    assert model.module is not None
    for key, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, trained[key])


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_checkpoint_of_a_training_script_is_unwrapped(tmp_path: Path, key: str, prefix: str) -> None:
    trained = weights_of(Trained())
    torch.save({key: {prefix + k: v for k, v in trained.items()}, "epoch": 3}, tmp_path / "last.pt")
    module = toy_models.Small()
    load_weights(module, tmp_path / "last.pt")
    assert torch.equal(module.head.weight, trained["head.weight"])


def test_checkpoint_from_before_batch_norm_counted_its_batches_fits(tmp_path: Path) -> None:
    trained = weights_of(Trained())
    del trained["norm.num_batches_tracked"]
    torch.save(trained, tmp_path / "old.pt")
    load_weights(toy_models.Small(), tmp_path / "old.pt")


def without_head(weights: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in weights.items() if not k.startswith("head")}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without_head, "it lacks head.weight, head.bias;"),
        (
            lambda w: {f"net.{k}": v for k, v in w.items()},
            "it lacks conv.weight, conv.bias, norm.weight and 7",
        ),
        (lambda w: {**w, "extra": torch.ones(1)}, "it has unknown extra;"),
        (
            lambda w: {**w, "head.weight": torch.ones(10, 8)},
            "it misfits: head.weight is [10, 8], in the model [4, 8];",
        ),
        (
            lambda w: {**w, "head.bias": w["head.bias"].to(torch.complex64)},
            "it misfits: head.bias is complex64, in the model float32;",
        ),
        (
            lambda w: {**w, "head.bias": w["head.bias"].to(torch.int8)},
            "head.bias is int8, in the model float32;",
        ),
        (lambda w: {"epoch": 3}, "holds no state dict"),
        (lambda w: [1, 2], "holds no state dict"),
        (lambda w: {}, "holds no state dict"),
        (lambda w: Trained(), "holds more than tensors, which Edgewright does not unpickle"),
    ],
)
def test_weights_that_do_not_fit_are_named_in_one_line(tmp_path: Path, change: Any, problem: str) -> None:
    torch.save(change(weights_of(Trained())), tmp_path / "w.pt")
    with pytest.raises(ConversionError) as caught:
        load_weights(toy_models.Small(), tmp_path / "w.pt")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("torn.pt", b"PK\x03\x04", "is torn"),
        ("torn.safetensors", b"\x08", "is torn"),
        ("weights.bin", b"", "is not a .safetensors, .pt or .pth file"),
        ("absent.pt", None, "does not exist"),
    ],
)
def test_file_that_holds_no_weights_is_refused(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=problem):
        load_source("toy_models:small", tmp_path / name)


def test_source_that_holds_its_own_weights_takes_no_others(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(ConversionError, match="holds its own weights; leave --weights out"):
        load_source(tmp_path / "net.onnx", tmp_path / "w.pt")
