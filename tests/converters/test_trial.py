from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from static_int8 import static_int8
from torch_layers import prepared

from edgewright_converters.held_out import parts
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.trial import AMPLE_DB, ENOUGH_DB, POOR_DB, Goal, Trial, Tryout

TRIAL = Trial("onnx", "int8", 40.0, 0, 64, 1000, 1e-3, 2e-3)


def outcome(sqnr_db: float, changed: int | None = 0, samples: int = 64) -> Trial:
    return replace(TRIAL, sqnr_db=sqnr_db, changed=changed, samples=samples)


def test_little_noise_and_no_changed_class_is_good_enough() -> None:
    goal = Goal(max_drop=1.0)
    assert goal.met(outcome(ENOUGH_DB)) and not goal.met(outcome(ENOUGH_DB - 1))
    assert not goal.met(outcome(40.0, changed=1)) and Goal(max_drop=10.0).met(outcome(40.0, changed=3))


def test_model_that_is_no_classifier_is_judged_by_its_noise() -> None:
    assert Goal(1.0).met(outcome(ENOUGH_DB, None)) and not Goal(1.0).met(outcome(ENOUGH_DB - 1, None))
    assert Goal(1.0, 20.0).met(outcome(21.5, None)) and not Goal(1.0, 20.0).met(outcome(20.5, None))
    assert Goal(1.0, 45.0).met(outcome(46.5, None)) and not Goal(1.0, 45.0).met(outcome(40.0, None))


def test_few_changed_samples_are_no_clear_miss() -> None:
    goal = Goal(max_drop=1.0)
    assert not goal.clearly_missed(outcome(20.0, changed=2))
    assert goal.clearly_missed(outcome(20.0, changed=20))
    assert goal.clearly_missed(outcome(POOR_DB - 1, None)) and not goal.clearly_missed(outcome(POOR_DB, None))
    assert Goal(1.0, 25.0).clearly_missed(outcome(24.0)) and Goal(1.0, 25.0).clearly_missed(
        outcome(24.0, None)
    )


@given(
    st.floats(0, 60),
    st.one_of(st.none(), st.integers(0, 64)),
    st.floats(0, 100),
    st.one_of(st.none(), st.floats(0, 50)),
)
def test_no_trial_both_meets_the_goal_and_clearly_misses_it(
    sqnr_db: float, changed: int | None, max_drop: float, min_sqnr_db: float | None
) -> None:
    goal, trial = Goal(max_drop, min_sqnr_db), outcome(sqnr_db, changed)
    assert not (goal.met(trial) and goal.clearly_missed(trial))


@pytest.mark.slow
def test_candidate_is_run_and_timed_beside_float() -> None:
    one = prepared("Linear")
    exported = one.graphs.exported["onnx"]
    tryout = Tryout.on(one.source.run, [one.samples])
    int8 = static_int8(exported, one.samples, "uint8")
    good = tryout.run([int8], exported)
    plain = QuantisedModel("onnx", "float32", exported.data, exported.inputs, exported.outputs)
    itself = tryout.run([plain], exported)
    assert itself.sqnr_db > 100 and itself.changed == 0 and itself.changed_share == 0.0
    assert 20 < good.sqnr_db < 60 and good.samples == 16
    assert good.seconds > 0 and good.float_seconds > 0
    assert good.speedup == pytest.approx(good.float_seconds / good.seconds)
    assert np.isfinite(good.speedup) and good.model_bytes != itself.model_bytes


@pytest.mark.slow
def test_candidates_of_two_parts_are_judged_on_one_each_and_their_noise_averaged() -> None:
    one = prepared("Linear")
    exported = one.graphs.exported["onnx"]
    split = parts(one.samples)
    tryout = Tryout.on(one.source.run, [part.judged for part in split])
    plain = QuantisedModel("onnx", "float32", exported.data, exported.inputs, exported.outputs)
    int8 = static_int8(exported, one.samples, "uint8")
    both = tryout.run([int8, plain], exported)
    halves = [Tryout.on(one.source.run, [part.judged]).run([int8], exported) for part in split]
    # The float half adds no noise: half of the noise is 3 dB less.
    assert both.samples == one.samples.count and both.sqnr_db == pytest.approx(
        halves[0].sqnr_db + 3.01, abs=0.1
    )
    whole = tryout.run([int8], exported)
    assert whole.samples == one.samples.count
    assert min(h.sqnr_db for h in halves) <= whole.sqnr_db <= max(h.sqnr_db for h in halves)


def test_repairs_that_cost_no_run_time_go_on_beyond_the_goal_unless_it_was_asked_for() -> None:
    goal = Goal(1.0)
    assert goal.ample(outcome(AMPLE_DB)) and goal.met(outcome(AMPLE_DB - 1))
    assert not goal.ample(outcome(AMPLE_DB - 1)) and not goal.ample(outcome(AMPLE_DB - 1, None))
    assert Goal(1.0, 20.0).ample(outcome(21.0, None)) and not Goal(1.0, 20.0).ample(outcome(20.0, None))
