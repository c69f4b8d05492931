from __future__ import annotations

from pathlib import Path

import pytest
import torch
import toy_data
import toy_models

from edgewright.errors import ConversionError
from edgewright_converters.export import export
from edgewright_converters.source import load_source

SAMPLES = [{"image": toy_data.images()[i : i + 1]} for i in range(2)]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (toy_models.Branches, r"control flow depends on the data \(toy_models\.py:\d+\)"),
        (toy_models.ReadsItem, r"control flow depends on the data \(toy_models\.py:\d+\)"),
        (toy_models.ExportsOtherwise, r"torch\.export does not reproduce it: output 'output' differs"),
        (toy_models.FixesAtFirst, r"torch\.export does not reproduce it: .* for sample 1"),
    ],
)
def test_program_that_would_not_be_the_model_is_refused(model: type[torch.nn.Module], problem: str) -> None:
    source = load_source(model())
    with pytest.raises(ConversionError, match=problem) as caught:
        export(source, SAMPLES, source.run(SAMPLES[0]), "onnx")
    assert "\n" not in str(caught.value)


def test_torchscript_that_cannot_be_taken_over_is_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(toy_models.Peculiar()), tmp_path / "net.pt")
    source = load_source(tmp_path / "net.pt")
    with pytest.raises(
        ConversionError, match=r"TorchScript that torch\.export cannot.*module:function"
    ) as caught:
        export(source, SAMPLES, source.run(SAMPLES[0]), "onnx")
    assert "\n" not in str(caught.value)
