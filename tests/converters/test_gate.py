from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.artifact.golden import GoldenVectors
from edgewright.artifact.manifest import AccuracyReport, GateCheck, GateReport
from edgewright.figures import costs, gate_lines, left_in_float
from edgewright.runtime.memory import PeakMemory
from edgewright_converters.accuracy_gate import GateLimits, accuracy_checks
from edgewright_converters.comparison import Comparison
from edgewright_converters.gate import gate, overall
from edgewright_converters.operators import ExecutedOperator
from edgewright_converters.pipeline import convert
from edgewright_converters.prediction import predicted_latencies
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.statistics import paired_difference, proportion
from edgewright_converters.verify import SpeedUp, VerifiedModel
from edgewright_profiles import load_profile
from edgewright_profiles.cost import OperatorWork

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((24, 2, 12, 12)).astype(np.float32)
PI = load_profile("raspberry-pi-5")
CONV = OperatorWork("stem", "conv", 1_000_000, 1_000, 10_000)
HEAD = OperatorWork("head", "matmul", 10_000, 10_000, 100)


def labelled(both: int, lost: int, gained: int, neither: int, data: Any = "evaluation") -> AccuracyReport:
    change = paired_difference(both=both, lost=lost, gained=gained, neither=neither)
    return AccuracyReport(
        executed_by="r", data=data, samples=change.samples, sqnr_db={"y": 25.0}, change=change,
        agreement=proportion(both + neither, change.samples),
    )  # fmt: skip


def test_labels_that_float_itself_hits_by_chance_alone_prove_nothing() -> None:
    by_chance = labelled(1000, 0, 0, 9000).model_copy(update={"float_accuracy": proportion(1000, 10_000)})
    found = accuracy_checks(by_chance, GateLimits(), 10)[0]
    assert found.verdict == "inconclusive" and "may be chance among 10 classes" in found.says
    assert found.remedy is not None and "numbers the classes as the model does" in found.remedy
    better = by_chance.model_copy(update={"float_accuracy": proportion(3000, 10_000)})
    assert accuracy_checks(better, GateLimits(), 10)[0].verdict == "pass"
    # A loss is a loss all the same.
    lost = labelled(1000, 900, 0, 8100).model_copy(update={"float_accuracy": proportion(1900, 10_000)})
    assert accuracy_checks(lost, GateLimits(), 5)[0].verdict == "fail"


def unlabelled(agreed: int, samples: int, data: Any = "evaluation") -> AccuracyReport:
    return AccuracyReport(
        executed_by="r", data=data, samples=samples, sqnr_db={"y": 25.0},
        agreement=proportion(agreed, samples),
    )  # fmt: skip


def outputs_alone(decibels: float, data: Any = "evaluation") -> AccuracyReport:
    return AccuracyReport(executed_by="r", data=data, samples=9, sqnr_db={"y": 30.0, "z": decibels})


def check(report: AccuracyReport, name: str = "accuracy", **limits: Any) -> GateCheck:
    return next(c for c in accuracy_checks(report, GateLimits(**limits)) if c.name == name)


def verified(*operators: ExecutedOperator, data: bytes = b"x" * 1000, **changes: Any) -> VerifiedModel:
    model = QuantisedModel("onnx", "int8", data, (), ())
    accuracy = labelled(9800, 5, 5, 190)
    base = VerifiedModel(
        model, accuracy, GoldenVectors({}, {}), "r", (), 4000, SpeedUp(2.0, 1.9, 2.1, 50), operators,
        PeakMemory(60_000_000, 70_000_000),
    )  # fmt: skip
    return replace(base, **changes)


def judge(one: VerifiedModel, profile: str = "raspberry-pi-5", **limits: Any) -> GateReport:
    return gate(
        one, load_profile(profile), GateLimits(**limits), work=(CONV, HEAD), predicted=(), conversion_s=1.0
    )


INTEGER = ExecutedOperator("stem", "QLinearConv", CONV, True, 3e-3)
FLOAT = ExecutedOperator("head", "Gemm", HEAD, False, 1e-3)


def test_small_loss_on_many_samples_passes() -> None:
    assert check(labelled(9500, 20, 10, 470)).verdict == "pass"


def test_clear_loss_fails_and_says_by_how_much() -> None:
    found = check(labelled(8500, 500, 10, 990))
    assert found.verdict == "fail"
    assert "-4.90 points" in found.says and "the limit is -1" in found.says and found.remedy


def test_few_samples_are_inconclusive_and_say_how_many_would_do() -> None:
    found = check(labelled(90, 1, 1, 8))
    assert found.verdict == "inconclusive"
    assert found.samples_needed is not None and str(found.samples_needed) in str(found.remedy)


def test_loss_at_the_limit_is_said_to_be_undecidable() -> None:
    found = check(labelled(900, 20, 10, 70))
    assert found.verdict == "inconclusive" and found.samples_needed is None
    assert "no reasonable number of samples decides it" in str(found.remedy)


def test_wider_limit_lets_the_same_loss_pass() -> None:
    assert check(labelled(8500, 500, 10, 990), max_drop=10.0).verdict == "pass"


def test_calibration_data_can_show_a_loss_but_never_rule_one_out() -> None:
    good, bad = (
        check(labelled(9990, 0, 0, 10, "calibration")),
        check(labelled(8000, 900, 0, 100, "calibration")),
    )
    assert good.verdict == "inconclusive" and "--evaluation" in str(good.remedy)
    assert bad.verdict == "fail"
    assert check(unlabelled(5000, 5000, "calibration")).verdict == "inconclusive"


def test_agreement_bounds_the_loss_without_labels() -> None:
    found = check(unlabelled(4990, 5000))
    assert found.verdict == "pass"
    assert "bounded by agreement" in found.says and "accuracy itself was not measured" in found.says


def test_disagreement_alone_never_fails() -> None:
    found = check(unlabelled(100, 5000))
    assert found.verdict == "inconclusive" and found.samples_needed is None and "labels" in str(found.remedy)
    few = check(unlabelled(50, 50))
    assert few.verdict == "inconclusive" and few.samples_needed is not None


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400), st.integers(1, 400), st.floats(0, 30))
def test_every_accuracy_has_exactly_one_verdict_with_words(
    both: int, lost: int, gained: int, neither: int, max_drop: float
) -> None:
    for report in (labelled(both, lost, gained, neither), unlabelled(both, both + neither)):
        found = check(report, max_drop=max_drop)
        assert found.says and (found.verdict == "pass") == (found.remedy is None)


def test_agreement_never_passes_what_labels_fail() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        comparison = Comparison("y")
        for _ in range(60):
            scores, other = rng.standard_normal((1, 3)), rng.standard_normal((1, 3))
            comparison.add(
                {"y": scores}, {"y": other if rng.random() < 0.1 else scores}, int(rng.integers(3))
            )
        with_labels = comparison.report("r", "evaluation")
        without = with_labels.model_copy(update={"change": None})
        if check(without, max_drop=8.0).verdict == "pass":
            assert check(with_labels, max_drop=8.0).verdict != "fail"


def test_broken_output_fails_whatever_was_asked() -> None:
    assert check(outputs_alone(2.0), "outputs").verdict == "fail"
    assert check(outputs_alone(2.0), "outputs", min_sqnr_db=-50.0).verdict == "fail"


def test_model_that_is_no_classifier_needs_a_limit_to_pass() -> None:
    assert check(outputs_alone(20.0), "outputs").verdict == "inconclusive"
    assert check(outputs_alone(20.0), "outputs", min_sqnr_db=15.0).verdict == "pass"
    assert check(outputs_alone(20.0), "outputs", min_sqnr_db=25.0).verdict == "fail"
    assert check(outputs_alone(20.0, "calibration"), "outputs", min_sqnr_db=15.0).verdict == "inconclusive"


def test_model_left_in_float_fails_in_plain_words() -> None:
    report = judge(verified(replace(INTEGER, integer=False), FLOAT))
    assert report.verdict == "fail" and report.int8_mac_share == 0.0
    (found,) = [c for c in report.checks if c.name == "int8-share"]
    assert "the model was left in float" in found.says


def test_operator_left_in_float_is_named_with_its_shares() -> None:
    report = judge(verified(INTEGER, FLOAT))
    (left,) = report.float_operators
    assert (left.name, left.type, left.time_share) == ("head", "Gemm", 0.25)
    assert left.mac_share == pytest.approx(10_000 / 1_010_000)
    assert report.operator_time == "measured on host"


def test_int8_in_name_alone_is_said_and_no_pass_of_that_check() -> None:
    mostly = replace(FLOAT, work=OperatorWork("head", "matmul", 90_000_000, 10_000, 100))
    report = judge(verified(INTEGER, mostly))
    (found,) = [c for c in report.checks if c.name == "int8-share"]
    assert found.verdict == "inconclusive" and found.says.startswith("MOSTLY FLOAT: only 1.1% of the")
    assert (
        report.verdict == "pass"
    )  # it is as accurate and fits; what was asked for is for its maker to weigh


def test_time_that_the_runtime_does_not_tell_is_marked_predicted() -> None:
    report = judge(verified(replace(INTEGER, seconds=None), replace(FLOAT, seconds=None)))
    assert report.operator_time == "predicted"
    assert report.float_operators[0].time_share is not None and 0 < report.float_operators[0].time_share < 1


def test_slower_than_float_is_said_but_does_not_fail() -> None:
    report = judge(verified(INTEGER, speedup=SpeedUp(0.6, 0.59, 0.61, 50)))
    (found,) = [c for c in report.checks if c.name == "speed"]
    assert found.verdict == "inconclusive" and "SLOWER than float" in found.says
    assert report.verdict == "pass"


def test_file_larger_than_floats_is_said_with_the_reason_and_what_to_do() -> None:
    report = judge(verified(INTEGER, data=b"x" * 5000))
    (found,) = [c for c in report.checks if c.name == "size"]
    assert (
        found.verdict == "inconclusive" and "LARGER than float" in found.says and "1.25 times" in found.says
    )
    assert found.remedy is not None and "--precision float32 is smaller" in found.remedy
    assert report.verdict == "pass"
    model = QuantisedModel("tflite", "int8", b"x" * 5000, (), ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgewright_converters.gate.rule_checks", lambda *_: ())
        unrolled = judge(verified(*[INTEGER] * 20, model=model))
    (found,) = [c for c in unrolled.checks if c.name == "size"]
    assert "20 operators (the model has 2: TFLite unrolls" in found.says and "--format onnx" in str(
        found.remedy
    )
    (smaller,) = [c for c in judge(verified(INTEGER)).checks if c.name == "size"]
    assert smaller.verdict == "pass" and smaller.remedy is None and "0.25 times float's 4 kB" in smaller.says


def test_speed_predicted_is_that_of_the_artifacts_own_precision() -> None:
    heavy = (replace(CONV, macs=10**9), HEAD)

    def ratio(precision: Any) -> float:
        one = verified(INTEGER, model=QuantisedModel("onnx", precision, b"x", (), ()))
        predicted = predicted_latencies(PI, "onnx", precision, heavy)
        report = gate(one, PI, GateLimits(), work=heavy, predicted=predicted, conversion_s=0.0)
        (found,) = [c for c in report.checks if c.name == "speed"]
        return float(found.says.split("predicted on raspberry-pi-5: ")[1].split()[0])

    assert ratio("int8-weights") == pytest.approx(1.0, abs=0.1)  # it computes in float
    assert ratio("int8") == pytest.approx(ratio("int8-dynamic"), rel=0.1) and ratio("int8") > 2


def test_operators_left_in_float_are_listed_by_their_time_and_the_rest_summed() -> None:
    floats = [replace(FLOAT, name=f"op{i}", seconds=i * 1e-3) for i in range(1, 9)]
    lines = left_in_float(judge(verified(INTEGER, *floats)))
    assert len(lines) == 7 and lines[0].startswith("Gemm op8: ")
    assert lines[-1].startswith("2 more: ") and "7.7% of time (measured on host)" in lines[-1]


def test_memory_and_conversion_time_are_said_whatever_the_budgets() -> None:
    assert costs(judge(verified(INTEGER))) == (
        "peak memory 70 MB, 10 MB of it the model's, measured on host; converted in 1 s"
    )
    assert "not measured" in costs(judge(verified(INTEGER, memory=None)))


def test_missed_budget_fails_and_names_the_nearest_profile_that_fits() -> None:
    report = judge(verified(INTEGER, data=b"x" * 60_000_000), "android-flagship")
    (found,) = [c for c in report.checks if c.name == "artifact-size"]
    assert report.verdict == found.verdict == "fail"
    assert "60 MB" in found.says and "fits raspberry-pi-4" in str(found.remedy)


def test_budget_that_no_profile_has_is_said_so() -> None:
    report = judge(verified(INTEGER, memory=PeakMemory(1, 10**12)))
    (found,) = [c for c in report.checks if c.name == "peak-memory"]
    assert found.verdict == "fail" and "no profile of the catalog takes it" in str(found.remedy)


def test_predicted_latency_that_straddles_the_budget_is_inconclusive() -> None:
    verdicts = {}
    for macs in (10**7, 3 * 10**9, 10**11):
        work = (replace(CONV, macs=macs),)
        report = gate(verified(INTEGER), PI, GateLimits(), work=work, predicted=(), conversion_s=0.0)
        (found,) = [c for c in report.checks if c.name == "latency"]
        assert found.how == "predicted"
        verdicts[macs] = found.verdict
    assert list(verdicts.values()) == ["pass", "inconclusive", "fail"]


def test_power_that_was_not_measured_is_never_a_pass() -> None:
    (found,) = [c for c in judge(verified(INTEGER), "x86-64-gateway").checks if c.name == "power"]
    assert (found.verdict, found.how, found.actual) == ("inconclusive", "not measured", None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["accuracy", "speed"]), st.sampled_from(["pass", "fail", "inconclusive"]))
    )
)
def test_whole_is_no_better_than_accuracy_and_fails_with_any_check(found: list[tuple[str, Any]]) -> None:
    checks = [GateCheck(name=n, verdict=v, unit="", how="predicted", says="so") for n, v in found]
    verdict = overall(checks)
    assert (verdict == "fail") == any(v == "fail" for _, v in found)
    accuracy = [v for n, v in found if n == "accuracy"]
    assert verdict != "pass" or (accuracy and set(accuracy) == {"pass"})


@pytest.mark.slow
def test_failed_conversion_writes_nothing_unless_it_is_to_be_kept(tmp_path: Path) -> None:
    def run(keep_failed: bool) -> Any:
        return convert(
            "toy_models:small", calibration={"x": IMAGES}, evaluation={"x": IMAGES}, min_sqnr=150.0,
            profile="raspberry-pi-5", format="onnx", output=tmp_path / "out", keep_failed=keep_failed,
        )  # fmt: skip

    report = run(keep_failed=False)
    assert (report.verdict, report.output, report.reference) == ("fail", None, None)
    assert not (tmp_path / "out").exists()
    assert any("at least 150 dB" in line for line in gate_lines(report.artifacts[0]))
    kept = run(keep_failed=True)
    assert kept.output == tmp_path / "out" and kept.artifacts[0].gate.verdict == "fail"
