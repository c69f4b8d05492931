from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_data
import toy_models
from onnx_graphs import exported_graph, node

from edgewright.errors import ConversionError
from edgewright_converters.export import UnsupportedOperatorError, export
from edgewright_converters.graphs import as_module
from edgewright_converters.optimise import optimise
from edgewright_converters.source import SourceModel, load_source
from edgewright_converters.verify import open_specs

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


class PassesState(torch.nn.Module):
    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"score": frame + state, "state": state * 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
def test_output_may_have_the_name_of_an_input(tmp_path: Path, model_format: Any) -> None:
    source = load_source(PassesState())
    samples = [{name: np.full((1, 3), 2, np.float32) for name in ("frame", "state")}] * 2
    graph = optimise(export(source, samples, source.run(samples[0]), model_format))
    assert [spec.name for spec in graph.outputs] == ["score", "state"]
    outputs = open_specs(tmp_path / "model", graph).run(samples[0])
    np.testing.assert_allclose(outputs["state"], 1.0)
    np.testing.assert_allclose(outputs["score"], 4.0)


@pytest.mark.slow
def test_graph_that_the_runtime_refuses_is_one_line() -> None:
    class Looks(torch.nn.Module):
        """An int32 index into a table, for which the exporter writes an operator that takes int64 alone."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(60))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table[ids]

    source = load_source(Looks())
    samples = [{"ids": np.ones((1, 12), np.int32)}] * 2
    graph = export(source, samples, source.run(samples[0]), "onnx")
    with pytest.raises(ConversionError, match="ONNX Runtime does not take the exported graph") as caught:
        optimise(graph)
    assert "\n" not in str(caught.value)


def test_onnx_operator_that_is_not_carried_over_to_tflite_is_named_with_what_to_do() -> None:
    graph = exported_graph([node("Det", "x", "area")], {"x": (1, 3, 3)}, ["area"], {})
    source = SourceModel("net.onnx", "net", ("x",), lambda sample: dict(sample), onnx_path=Path("net.onnx"))
    with pytest.raises(UnsupportedOperatorError, match="operator Det of node 'area'") as caught:
        as_module(source, graph)
    assert caught.value.remedy == "convert from the PyTorch source"
