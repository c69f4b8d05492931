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

from edgewright_converters.export import ExportedGraph, export
from edgewright_converters.optimise import optimise
from edgewright_converters.quantise.decision import own_ranges
from edgewright_converters.quantise.tflite_static import quantise_tflite
from edgewright_converters.source import load_source
from edgewright_converters.tflite_layout import without_turned_reductions
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
    changed = without_turned_reductions(graph)
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
    assert without_turned_reductions(graph) is graph or "TRANSPOSE" not in kinds(graph)


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
