from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import DataError
from edgewright_converters.calibration import SampleSet, load_samples
from edgewright_converters.fine_tuning.training_data import JUDGED, LEAST, share_out


def numbers(*values: int) -> SampleSet:
    """Samples that are one number each."""
    return load_samples({"x": np.array(values, np.float32)[:, np.newaxis]}, ("x",))


@given(
    st.lists(st.integers(0, 400), min_size=LEAST, max_size=300, unique=True),
    st.lists(st.integers(0, 400), max_size=40),
    st.lists(st.integers(0, 400), min_size=1, max_size=20),
)
def test_no_sample_is_both_learnt_and_judged_and_none_that_steers_is_either(
    values: list[int], repeated: list[int], steering: list[int]
) -> None:
    values += [value for value in repeated if value in values]
    if len(set(values) - set(steering)) < LEAST:
        return
    found = share_out(numbers(*values), numbers(*steering))
    learnt, judging = ({values[i] for i in part} for part in (found.learnt, found.judging))
    assert not learnt & judging and not (learnt | judging) & set(steering)
    assert learnt | judging == set(values) - set(steering)
    assert len(found.judging) == len(judging) == min(JUDGED, len(learnt | judging) // 4)
    judges = [int(next(iter(sample.inputs.values())).item()) for sample in found.judges()]
    assert set(judges) == judging
    again = share_out(numbers(*values), numbers(*steering))
    assert (again.learnt, again.judging) == (found.learnt, found.judging)


def test_evaluation_samples_in_the_training_data_are_refused() -> None:
    with pytest.raises(DataError, match=r"holds 2 of the evaluation samples.*take them out"):
        share_out(numbers(*range(100)), (), numbers(200, 99, 3))


def test_too_few_samples_are_refused_with_how_many_it_takes() -> None:
    with pytest.raises(DataError, match=f"holds 60 different samples.*takes {LEAST}"):
        share_out(numbers(*range(70), 1, 2), numbers(*range(10)))
