from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgewright_converters.calibration import SampleSet, load_samples
from edgewright_converters.held_out import ENOUGH, MOST, SHARE, parts


def numbered(count: int) -> SampleSet:
    """Samples whose one value is their number, labelled by it."""
    return load_samples({"x": np.arange(count, dtype=np.float32)[:, None], "y": np.arange(count)}, ["x"])


def numbers_of(samples: SampleSet) -> list[int]:
    found = [int(sample.inputs["x"][0, 0]) for sample in samples]
    assert [sample.label for sample in samples] == found
    assert samples.labels is not None and samples.labels.tolist() == found and samples.count == len(found)
    return found


@given(st.integers(2, 600))
def test_no_sample_is_judged_by_what_was_fitted_on_it_and_none_is_lost(count: int) -> None:
    samples = numbered(count)
    split = parts(samples)
    for part in split:
        fitted, judged = numbers_of(part.fitted), numbers_of(part.judged)
        assert sorted(fitted + judged) == list(range(count)) and fitted and judged
    if len(split) == 1:
        assert ENOUGH <= split[0].judged.count == min(MOST, count // SHARE)
    else:
        assert count < ENOUGH * SHARE
        assert numbers_of(split[0].judged) == numbers_of(split[1].fitted)


def test_single_sample_judges_itself() -> None:
    (part,) = parts(numbered(1))
    assert numbers_of(part.fitted) == numbers_of(part.judged) == [0]


def test_samples_are_drawn_the_same_each_time_and_not_at_a_steady_stride() -> None:
    samples = numbered(100)
    one, other = (numbers_of(parts(samples)[0].judged) for _ in range(2))
    assert one == other and len(set(np.diff(one))) > 2


def test_labels_may_be_absent() -> None:
    unlabelled = replace(numbered(8), labels=None)
    assert all(part.judged.labels is None for part in parts(unlabelled))
