from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_graphs

from edgewright_converters.export import ExportedGraph
from edgewright_converters.models import _runs_here
from edgewright_converters.precision_choice import Tried, choose
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.targets import Setting
from edgewright_converters.trial import Goal, Trial
from edgewright_profiles import load_profile

GOOD = Trial("onnx", "int8", 40.0, 0, 64, 100, 1.0, 2.0)
STATIC = QuantisedModel("onnx", "int8", b"static", (), ())
LAYERS = QuantisedModel("onnx", "int8", b"layers", (), ())


def graph() -> ExportedGraph:
    nodes = [onnx_graphs.node("Relu", "x", "y")]
    return onnx_graphs.float_graph(nodes, {"x": (1, 4)}, ["y"], {}).exported()


def chosen(trials: dict[bytes, Trial], **given: Any) -> Any:
    exported = graph()
    trials = {exported.data: replace(GOOD, precision="float32", seconds=2.0), **trials}
    settings: dict[str, Any] = {"same_architecture": True, "budget_bytes": None, **given}
    return choose(
        STATIC,
        {"layers in INT8": lambda: LAYERS},
        exported,
        (),
        lambda model: trials[model.data],
        Goal(1.0),
        **settings,
    )


def test_int8_that_is_fast_and_near_enough_is_kept_without_trying_another() -> None:
    choice = chosen({b"static": GOOD})
    assert choice.model is STATIC and choice.reason is None and choice.tried == (Tried("INT8", GOOD, True),)


def test_slow_int8_gives_way_to_the_fastest_and_the_reason_is_said() -> None:
    slow = replace(GOOD, seconds=4.0)
    choice = chosen({b"static": slow, b"layers": replace(GOOD, seconds=1.6)})
    assert choice.model is LAYERS
    assert choice.reason == (
        "INT8 has 0.50 times float's speed on this host; layers in INT8 is taken, 6 B and 1.25 times float's speed"
    )
    assert chosen({b"static": slow, b"layers": slow}).model.precision == "float32"


def test_int8_too_far_from_float_gives_way_though_it_is_fast() -> None:
    far = replace(GOOD, changed=20, sqnr_db=5.0)
    choice = chosen({b"static": far, b"layers": replace(far, seconds=0.5)})
    assert choice.model.precision == "float32" and "too far from float (5.0 dB)" in choice.reason


def test_slowness_on_another_architecture_must_be_structural() -> None:
    somewhat = replace(GOOD, seconds=2.2)
    assert chosen({b"static": somewhat}, same_architecture=False).model is STATIC
    assert chosen({b"static": somewhat, b"layers": somewhat}).model.precision == "float32"


def test_time_on_this_host_does_not_judge_what_runs_on_an_accelerator() -> None:
    slow = replace(GOOD, seconds=9.0)
    assert chosen({b"static": slow}, here=False).model is STATIC
    far = replace(slow, changed=20, sqnr_db=5.0)
    choice = chosen({b"static": far, b"layers": replace(GOOD, seconds=8.0)}, here=False)
    assert choice.model is LAYERS and "whose speed there is not known" in choice.reason


def test_candidate_over_the_budget_is_not_taken() -> None:
    slow = replace(GOOD, seconds=4.0)
    choice = chosen({b"static": slow, b"layers": slow}, budget_bytes=10)
    assert choice.model is STATIC and len(choice.tried) == 3


def test_int8_over_the_budget_gives_way_to_what_fits_though_it_is_fast_and_near() -> None:
    small = QuantisedModel("onnx", "int4-weights", b"4", (), ())
    far, near = replace(GOOD, sqnr_db=5.0), replace(GOOD, sqnr_db=20.0, seconds=1.8)
    for found, taken in ((near, small), (far, STATIC)):
        trials = {b"static": GOOD, b"layers": GOOD, b"4": found, graph().data: replace(GOOD, seconds=2.0)}
        choice = choose(
            STATIC, {"int4-weights": lambda: small}, graph(), (), lambda model, known=trials: known[model.data],
            Goal(1.0), same_architecture=True, budget_bytes=3,
        )  # fmt: skip
        assert choice.model is taken
    assert chosen({b"static": GOOD}, budget_bytes=6).reason is None
    reason = choose(
        STATIC, {"int4-weights": lambda: small}, graph(), (), lambda _: GOOD, Goal(1.0),
        same_architecture=True, budget_bytes=3,
    ).reason  # fmt: skip
    assert (
        reason == "INT8 takes 6 B, over the budget; int4-weights is taken, 1 B and 2.00 times float's speed"
    )


def test_int8_in_name_alone_gives_way_to_the_smallest_of_what_is_as_fast_as_float() -> None:
    as_float = replace(GOOD, seconds=2.0)
    trials = {b"static": as_float, b"layers": as_float}
    assert chosen(trials, integer_share=0.6).model is STATIC
    choice = chosen(trials, integer_share=0.001)
    assert choice.model.precision == "float32" and len(choice.tried) == 2
    assert choice.reason == (
        "static INT8 would run 0.1% of the multiply-accumulates in INT8; float32 is taken"
    )
    assert chosen(trials, integer_share=0.001, here=False).model is STATIC
    # A model without multiply-accumulates, and one for which nothing else fits.
    assert chosen(trials, integer_share=None).model is STATIC
    assert chosen(trials, integer_share=0.001, budget_bytes=10).model is STATIC


def grown(others: dict[str, Trial], static: Trial = GOOD, **given: Any) -> Any:
    """`choose` for a static INT8 file larger than float's, beside other precisions of a tenth of its size."""
    exported, trials = graph(), {"float32": replace(GOOD, precision="float32", seconds=2.0), **others}
    larger = QuantisedModel("onnx", "int8", exported.data * 2, (), ())
    small = {
        name: QuantisedModel("onnx", trial.precision, exported.data[: len(exported.data) // 5], (), ())
        for name, trial in others.items()
    }
    return choose(
        larger,
        {name: lambda model=model: model for name, model in small.items()},
        exported,
        (),
        lambda model: (
            static
            if model is larger
            else trials[next((n for n, one in small.items() if one is model), "float32")]
        ),
        Goal(1.0),
        **{"same_architecture": True, "budget_bytes": None, **given},
    )


def test_int8_larger_than_float_gives_way_to_what_is_smaller_and_as_fast() -> None:
    dynamic = replace(GOOD, precision="int8-dynamic", seconds=1.03)
    choice = grown({"int8-dynamic": dynamic})
    assert choice.model.precision == "int8-dynamic" and "more than float's" in choice.reason
    assert [(one.name, one.taken) for one in choice.tried] == [
        ("INT8", False), ("int8-dynamic", True), ("float32", False)
    ]  # fmt: skip
    # Speed is worth the bytes, and is not given up for them; that they grew is said all the same.
    choice = grown({"int8-dynamic": replace(dynamic, seconds=1.5)})
    assert choice.model.precision == "int8" and "nothing smaller is as fast" in choice.reason
    far = replace(dynamic, changed=20, sqnr_db=5.0)
    assert grown({"int8-dynamic": far}).model.precision == "int8"


def test_what_is_hardly_smaller_does_not_stand_in_for_int8() -> None:
    exported = graph()
    larger = QuantisedModel("onnx", "int8", exported.data + b"1", (), ())
    choice = choose(
        larger, {}, exported, (), lambda _: GOOD, Goal(1.0), same_architecture=True, budget_bytes=None
    )  # fmt: skip
    assert choice.model is larger and "more than float's" in choice.reason


def test_int8_larger_than_float_and_no_faster_is_float_where_speed_is_known() -> None:
    as_float = replace(GOOD, seconds=2.0)
    assert grown({}, as_float).model.precision == "float32"
    kept = grown({}, as_float, same_architecture=False)
    assert kept.model.precision == "int8" and "more than float's" in kept.reason
    assert grown({}, as_float, here=False).reason is None


def test_of_what_is_as_fast_and_as_small_the_nearest_to_float_is_taken() -> None:
    slow, half = replace(GOOD, seconds=4.0), replace(GOOD, precision="float16", seconds=2.0)
    exact = replace(GOOD, precision="float32", seconds=2.0, sqnr_db=140.0)
    choice = grown({"float16": half}, slow)
    assert choice.model.precision == "float16"
    assert chosen({b"static": slow, b"layers": slow, graph().data: exact}).model.precision == "float32"


def test_profile_that_demands_an_accelerator_is_not_judged_by_the_time_here() -> None:
    tflite = Setting("tflite", "int8")
    assert not _runs_here([load_profile("coral-dev-board")], tflite)
    assert _runs_here([load_profile("android-flagship"), load_profile("raspberry-pi-5")], tflite)
    assert not _runs_here([load_profile("jetson-orin-nano-tensorrt")], Setting("onnx", "int8"))
