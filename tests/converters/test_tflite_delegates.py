"""Which operators stay on the processor, by the published rules of each delegate, and what follows from that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_converters.tflite_delegates import Placement, mac_share, placements
from edgewright_converters.tflite_structure import StructureOperator, StructureTensor, TfliteStructure
from edgewright_profiles import load_delegate

EDGE_TPU, NNAPI = load_delegate("edge-tpu"), load_delegate("nnapi")


def live(*shape: int, dtype: str = "int8", **changes: Any) -> StructureTensor:
    scales = changes.pop("scales", (0.1,))
    return StructureTensor("t", shape, dtype, False, changes.pop("fixed", True), scales, (3,))


def held(*shape: int, **changes: Any) -> StructureTensor:
    return StructureTensor("w", shape, "int8", True, True, **changes)


def integers(*values: int) -> StructureTensor:
    return StructureTensor("n", (len(values),), "int32", True, True, value=np.array(values, np.int32))


def operator(
    kind: str, inputs: tuple[Any, ...], output: StructureTensor, macs: int = 0, **options: Any
) -> StructureOperator:
    return StructureOperator(kind.lower(), kind, inputs, (output,), options, macs)


IMAGE = live(1, 8, 8, 4)
CONV = operator("CONV_2D", (IMAGE, held(4, 3, 3, 4), held(4)), IMAGE, macs=900)
HEAD = operator("FULLY_CONNECTED", (live(1, 4), held(5, 4), held(5)), live(1, 5), macs=100)
SWISH = operator("HARD_SWISH", (IMAGE,), IMAGE)


def refusal(one: StructureOperator, delegate: Any = EDGE_TPU) -> str | None:
    return placements(TfliteStructure((one,), (), ()), delegate)[0].refusal


@pytest.mark.parametrize("one", [CONV, HEAD], ids=["convolution", "head"])
@pytest.mark.parametrize("delegate", [EDGE_TPU, NNAPI], ids=["edge-tpu", "nnapi"])
def test_plain_layer_is_taken(one: StructureOperator, delegate: Any) -> None:
    assert refusal(one, delegate) is None


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (SWISH, "has no HARD_SWISH"),
        (operator("CUSTOM", (IMAGE,), IMAGE), "has no CUSTOM"),
        (operator("ADD", (live(1, 4, dtype="float32"),), live(1, 4)), "is float32"),
        (operator("ADD", (live(1, 4, fixed=False),), live(1, 4)), "not fixed"),
        (operator("ADD", (live(2, 8, 8, 4),), live(2, 8, 8, 4)), "3 innermost dimensions"),
        (operator("CONV_2D", (IMAGE, live(1, 3, 3, 4), held(1)), IMAGE), "its weight is computed"),
        (operator("CONV_2D", (IMAGE, held(4, 3, 3, 4), held(4)), IMAGE, dilationWFactor=2), "dilations differ"),
        (
            operator("CONV_2D", (IMAGE, held(2, 1, 1, 4, scales=(0.1, 0.2), zero_points=(0, 1))), IMAGE),
            "a scale for each channel and a zero point",
        ),
        (operator("MAX_POOL_2D", (IMAGE,), IMAGE, fusedActivationFunction=1), "an activation is fused"),
        (operator("MEAN", (IMAGE, integers(1, 2, 3)), live(1)), "beyond height and width"),
        (operator("MEAN", (live(1, 8, 4), integers(1)), live(1, 4)), "beyond height and width"),
        (operator("PAD", (IMAGE, integers(0, 0, 1, 1, 1, 1, 0, 4)), live(1, 10, 10, 8)), "beyond height"),
        (operator("SOFTMAX", (live(1, 3, 4),), live(1, 3, 4)), "more than one dimension"),
        (operator("SOFTMAX", (live(1, 16_001),), live(1, 16_001)), "too long"),
        (operator("TRANSPOSE", (IMAGE, integers(1, 0, 2, 3)), IMAGE), "the first dimension"),
        (operator("SPLIT", (integers(0), IMAGE), IMAGE), "the first dimension"),
        (operator("PACK", (live(8, 4), live(8, 4)), live(2, 8, 4), axis=0), "the first dimension"),
        (operator("CONCATENATION", (IMAGE, IMAGE, held(1, 8, 8, 4)), IMAGE), "more than one tensor"),
        (operator("STRIDED_SLICE", (IMAGE, integers(0), integers(8), integers(2)), IMAGE), "strides"),
    ],
)  # fmt: skip
def test_edge_tpu_refuses(one: StructureOperator, said: str) -> None:
    assert said in str(refusal(one))


@pytest.mark.parametrize(
    "one",
    [
        operator("MEAN", (IMAGE, integers(1, -2)), live(1, 4)),
        operator("PAD", (IMAGE, integers(0, 0, 1, 1, 1, 1, 0, 0)), live(1, 10, 10, 4)),
        operator("SOFTMAX", (live(1, 1000),), live(1, 1000)),
        operator("TRANSPOSE", (IMAGE, integers(0, 2, 1, 3)), IMAGE),
        operator("STRIDED_SLICE", (IMAGE, integers(0), integers(4), integers(1)), IMAGE),
        operator("QUANTIZE", (live(1, 4, dtype="float32"),), live(1, 4)),
    ],
    ids=lambda one: one.kind,
)
def test_edge_tpu_takes_what_is_within_the_limits(one: StructureOperator) -> None:
    assert refusal(one) is None


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (operator("CONV_2D", (IMAGE, held(4, 3, 3, 4)), IMAGE), "no bias"),
        (operator("MEAN", (IMAGE, integers(1, 2)), live(1, 4, scales=(0.2,))), "another scale"),
        (operator("DIV", (IMAGE, IMAGE), IMAGE), "in float alone"),
        (operator("ADD", (live(1, 4, dtype="int16"),), live(1, 4)), "is int16"),
        (operator("SUB", (live(1, 1, 1, 1, 4),), live(1, 1, 1, 1, 4)), "more than four dimensions"),
        (operator("RESHAPE", (IMAGE, live(2, dtype="int32")), IMAGE), "int32"),
        (operator("EMBEDDING_LOOKUP", (live(1, 4), held(9, 4)), live(1, 4)), "has no EMBEDDING_LOOKUP"),
    ],
)  # fmt: skip
def test_nnapi_refuses(one: StructureOperator, said: str) -> None:
    assert said in str(refusal(one, NNAPI))


def test_nnapi_runs_float_as_well_and_the_edge_tpu_does_not() -> None:
    one = operator("ADD", (live(1, 4, dtype="float32"),), live(1, 4, dtype="float32"))
    assert refusal(one, NNAPI) is None and refusal(one, EDGE_TPU) is not None


def test_edge_tpu_runs_nothing_after_the_first_refusal_and_nnapi_does() -> None:
    structure = TfliteStructure((CONV, SWISH, CONV, HEAD), (), ())
    ours = placements(structure, EDGE_TPU)
    assert [placed.refusal is None for placed in ours] == [True, False, False, False]
    assert "comes after HARD_SWISH" in str(ours[2].refusal)
    assert mac_share(ours) == 900 / 1900
    assert mac_share(placements(structure, NNAPI)) == 1.0


def test_what_turns_floats_into_integers_at_the_start_ends_nothing() -> None:
    start = operator("QUANTIZE", (live(2, 8, 8, 4, dtype="float32"),), live(2, 8, 8, 4))
    found = placements(TfliteStructure((start, CONV, HEAD), (), ()), EDGE_TPU)
    assert found[0].refusal is not None and mac_share(found) == 1.0


@given(st.lists(st.tuples(st.integers(0, 10**9), st.booleans()), min_size=1, max_size=8))
def test_share_is_a_share_and_whole_only_where_no_work_is_refused(found: list[tuple[int, bool]]) -> None:
    placed = tuple(
        Placement(operator("ADD", (IMAGE,), IMAGE, macs=macs), "no" if refused else None)
        for macs, refused in found
    )
    share = mac_share(placed)
    assert 0.0 <= share <= 1.0
    if any(macs for macs, _ in found):
        assert (share == 1.0) == (not any(macs and refused for macs, refused in found))
