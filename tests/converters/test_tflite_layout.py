"""Transposes that a layout leaves are taken out of the file where that changes nothing, and counted where not."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch_layers import prepare

from edgewright_converters.correspondence import carried_over
from edgewright_converters.execution import Execution
from edgewright_converters.export import ExportedGraph, export
from edgewright_converters.optimise import optimise
from edgewright_converters.quantise.decision import own_ranges
from edgewright_converters.quantise.tflite_static import quantise_tflite
from edgewright_converters.source import load_source
from edgewright_converters.tflite_layout import without_layout_transposes
from edgewright_converters.tflite_structure import tflite_structure
from edgewright_converters.verify import open_specs

IMAGE: NDArray[Any] = np.random.default_rng(3).standard_normal((1, 3, 8, 6)).astype(np.float32)


class Reduced(nn.Module):
    """A convolution, and a reduction written as PyTorch numbers the axes."""

    def __init__(self, axes: tuple[int, ...], keep: bool) -> None:
        super().__init__()
        self.conv, self.axes, self.keep = nn.Conv2d(3, 5, 3), axes, keep

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(image)).mean(self.axes, keepdim=self.keep) * 2.0


@functools.cache
def exported(axes: tuple[int, ...], keep: bool = False) -> tuple[ExportedGraph, NDArray[Any]]:
    torch.manual_seed(0)
    source = load_source(Reduced(axes, keep).eval())
    outputs = source.run({"image": IMAGE})
    return export(source, [{"image": IMAGE}], outputs, "tflite"), next(iter(outputs.values()))


def kinds(graph: ExportedGraph) -> list[str]:
    return [operator.kind for operator in tflite_structure(graph.data).operators]


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(2, 3), (3,), (2,), (1,), (1, 2, 3)])
def test_reduction_gives_the_same_without_the_transpose_before_it(
    axes: tuple[int, ...], tmp_path: Path
) -> None:
    graph, expected = exported(axes)
    changed = without_layout_transposes(graph)
    assert kinds(changed).count("TRANSPOSE") <= kinds(graph).count("TRANSPOSE")
    (made,) = open_specs(tmp_path / "model", changed).run({"image": IMAGE}).values()
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_global_average_pool_written_as_a_mean_needs_no_transpose() -> None:
    graph, _ = exported((2, 3))
    assert "TRANSPOSE" in kinds(graph)
    better = optimise(graph)
    assert "TRANSPOSE" not in kinds(better)
    quantised = quantise_tflite(better, own_ranges(better, [{"image": IMAGE}]))
    assert tflite_structure(quantised.data).layout_transposes == ()


@pytest.mark.slow
def test_graph_without_such_a_reduction_is_left_as_it_is() -> None:
    graph, _ = exported((2, 3), keep=True)
    assert without_layout_transposes(graph) is graph or "TRANSPOSE" not in kinds(graph)


class Flattened(nn.Module):
    """An image that is flattened, once for one product and once for two."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.heads = nn.ModuleList(nn.Linear(5 * 6 * 4, 7) for _ in range(heads))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        flat = torch.relu(self.conv(image)).flatten(1)
        return sum(head(flat) for head in self.heads)  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("heads", [1, 2])
def test_product_over_a_flattened_image_gives_the_same_without_the_transpose(
    heads: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source = load_source(Flattened(heads).eval())
    outputs = source.run({"image": IMAGE})
    graph = export(source, [{"image": IMAGE}], outputs, "tflite")
    assert "TRANSPOSE" in kinds(graph)
    changed = optimise(graph)
    assert ("TRANSPOSE" in kinds(changed)) == (heads == 2)
    # A second copy of the weight would be larger than all else.
    assert len(changed.data) < len(graph.data) + 1000
    (made,) = open_specs(tmp_path / "model", changed).run({"image": IMAGE}).values()
    np.testing.assert_allclose(made, next(iter(outputs.values())), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_weight_whose_columns_were_turned_is_found_and_repaired_in_both_formats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = prepare(Flattened(1), (3, 8, 6), 8)
    graph, target = one.graphs.graph, one.graphs.tflite
    assert graph is not None and target is not None
    head = graph.layers[-1]
    assert target.found.covers(head.weight, head.bias)
    changed = graph.with_weights(
        {head.weight: graph.weights[head.weight] * 2, head.bias or "": np.zeros(7, np.float32)}
    )
    sample = {"image": IMAGE}
    (expected,) = Execution(changed).run(changed.feed(sample), lambda name, value: None).values()
    (made,) = (
        open_specs(tmp_path / "model", carried_over(changed, target.exported, target.found))
        .run(sample)
        .values()
    )
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_structure_counts_the_work_and_reads_the_types_of_a_quantised_file() -> None:
    graph, _ = exported((2, 3))
    data = quantise_tflite(graph, own_ranges(graph, [{"image": IMAGE}])).data
    structure = tflite_structure(data)
    conv = structure.operators[0]
    assert (conv.kind, conv.macs) == ("CONV_2D", 6 * 4 * 5 * 3 * 3 * 3)
    assert [tensor.dtype for tensor in (*structure.inputs, *structure.outputs)] == ["int8", "int8"]
    weight = conv.inputs[1]
    assert weight is not None and weight.constant and len(weight.scales) == 5 and not any(weight.zero_points)
    assert [len(conv.live), conv.live[0].fixed] == [2, True]
    mean = next(operator for operator in structure.operators if operator.kind == "MEAN")
    assert sorted(mean.integers(1)) == [2, 3] and len(structure.layout_transposes) == 1
