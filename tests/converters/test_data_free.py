from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgewright.errors import ConversionError, DataError
from edgewright_converters import data_free
from edgewright_converters.batch_norm import channel_normals
from edgewright_converters.execution import Execution
from edgewright_converters.expectation import expect
from edgewright_converters.graphs import float_graphs
from edgewright_converters.observation import observe
from edgewright_converters.pipeline import convert
from edgewright_converters.rungs import DATA_FREE
from edgewright_converters.source import load_source
from edgewright_converters.source_check import check_takes

MEAN, DEVIATION = 0.4, 0.7


def data(count: int, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    return (MEAN + DEVIATION * rng.standard_normal((count, 2, 12, 12))).astype(np.float32)


class Normed(nn.Module):
    """Batch norm with statistics of its own data, a residual sum, and a head without a norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            for norm in (self.first[1], self.second[1]):
                norm.weight.uniform_(0.2, 2.0)
                norm.bias.uniform_(-1.0, 2.0)
                norm.momentum = None
            self.train()
            for batch in torch.from_numpy(data(256, 0)).split(64):
                self(batch)
            self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.first(image)
        result: torch.Tensor = self.head((x + self.second(x)).mean((2, 3)))
        return result


@pytest.fixture(scope="module")
def prepared() -> Any:
    model = load_source(Normed())
    given = data_free.generate(model, {"image": (1, 2, 12, 12)})
    examples = [sample.inputs for sample in given.samples.head(2)]
    graphs = float_graphs(model, examples, check_takes(model, examples[0]), ["onnx"])
    assert graphs.graph is not None
    return model, given, graphs.graph


def test_first_norm_tells_the_scale_of_the_input(prepared: Any) -> None:
    _, given, _ = prepared
    values = np.concatenate([sample.inputs["image"].reshape(-1) for sample in given.samples])
    assert values.mean() == pytest.approx(MEAN, abs=0.15)
    # Images are taken to be smooth, which these are not: the deviation is right within a factor.
    assert DEVIATION / 2 < values.std() < DEVIATION * 2


def test_norms_are_found_again_in_the_folded_graph(prepared: Any) -> None:
    model, given, graph = prepared
    assert not any(node.op_type == "BatchNormalization" for node in graph.nodes)
    first = given.samples.head(1)[0].inputs
    normals = channel_normals(given.look(first), Execution(graph), first)
    assert len(normals) == 2
    for normal, norm in zip(normals.values(), (model.module.first[1], model.module.second[1]), strict=True):
        assert np.allclose(normal.mean, norm.bias.detach(), atol=1e-5)
        assert np.allclose(normal.deviation, norm.weight.detach(), rtol=0.01)


def test_expected_means_and_ranges_are_those_of_the_data(prepared: Any) -> None:
    _, given, graph = prepared
    execution = Execution(graph)
    first = given.samples.head(1)[0].inputs
    normals = channel_normals(given.look(first), execution, first)
    expected = expect(execution, normals, [graph.feed(s.inputs) for s in given.samples])
    real = [{"image": image[None]} for image in data(64, 3)]
    seen = observe(execution, (graph.feed(sample) for sample in real), "data")
    for name in (*normals, *(n.output[0] for n in graph.nodes if n.op_type in ("Clip", "Add", "Gemm"))):
        low, high = seen[name].range
        found_low, found_high = expected.statistics[name].range
        assert found_low <= low + 0.05 * (high - low) and found_high >= high - 0.05 * (high - low), name
    clip = next(n.output[0] for n in graph.nodes if n.op_type == "Clip")
    values: list[NDArray[Any]] = []
    for sample in real:
        execution.run(
            graph.feed(sample),
            lambda name, value: values.append(value.mean((0, 2, 3))) if name == clip else None,
        )
    assert np.allclose(expected.means[clip], np.mean(values, axis=0), atol=0.1)


def test_model_without_a_norm_is_refused_with_what_needs_no_data(tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ConversionError, match=r"no batch norm.*--calibration.*int8-dynamic"):
        convert(plain, input_shapes={"": (1, 6)}, profile="raspberry-pi-5", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, r"shape of its input 'image' is not known.*--input-shape image="),
        ({"input_shapes": {"photo": (1, 2, 12, 12)}}, "given for 'photo'; the model takes image"),
        ({"input_shapes": {"image": (4, 2, 12, 12)}}, "no batch of one"),
        ({"input_shapes": {"image": (1, 3, 12, 12)}}, "does not take"),
        ({"input_shapes": {"image": (1, 2, 12, 12)}, "input_range": (1.0, 0.0)}, "input range 1 to 0"),
    ],
)
def test_what_generated_inputs_cannot_be_made_of_is_said_in_one_line(
    options: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=says) as raised:
        convert(Normed(), profile="raspberry-pi-5", output=tmp_path / "out", **options)
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_onnx_file_is_refused_for_static_int8(tmp_path: Path) -> None:
    program = torch.onnx.export(Normed(), (torch.zeros(1, 2, 12, 12),), dynamo=True, verbose=False)
    assert program is not None
    onnx.save(program.model_proto, str(tmp_path / "net.onnx"))
    with pytest.raises(ConversionError, match=r"ONNX file they are folded away.*--calibration"):
        convert(tmp_path / "net.onnx", profile="raspberry-pi-5", output=tmp_path / "out")


@pytest.mark.slow
def test_exported_program_converts_without_data_and_says_that_accuracy_was_not_measured(
    tmp_path: Path,
) -> None:
    program = torch.export.export(Normed(), (torch.zeros(1, 2, 12, 12),))
    torch.export.save(program, tmp_path / "net.pt2")
    report = convert(
        tmp_path / "net.pt2", profile="raspberry-pi-5", precision="int8", output=tmp_path / "out",
        report=tmp_path / "page.html",
    )  # fmt: skip
    assert report.verdict == "inconclusive"
    assert [attempt.rung for attempt in report.attempts] == [rung.name for rung in DATA_FREE]
    assert {m.format for m in report.artifacts} == {"onnx", "tflite"}
    for manifest in report.artifacts:
        assert manifest.provenance.calibration_samples == 0 and manifest.provenance.calibration_digest is None
        assert manifest.accuracy.data == "generated" and manifest.accuracy.agreement is None
        assert manifest.drift_reference is None
        assert manifest.gate is not None and manifest.gate.int8_mac_share == 1.0
        check = next(check for check in manifest.gate.checks if check.name == "accuracy")
        assert check.verdict == "inconclusive" and check.how == "not measured"
    assert "generated inputs" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_evaluation_data_measures_what_was_converted_without_data(tmp_path: Path) -> None:
    images = data(64, 5)
    report = convert(
        Normed(),
        evaluation={"image": images},
        input_shapes={"image": (1, 2, 12, 12)},
        profile="raspberry-pi-5",
        precision="int8",
        output=tmp_path / "out",
    )
    for manifest in report.artifacts:
        assert manifest.accuracy.data == "evaluation" and manifest.accuracy.samples == 64
        assert manifest.accuracy.sqnr_db["output"] > 20
