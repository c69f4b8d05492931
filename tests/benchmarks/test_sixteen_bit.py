"""The evidence for trying no 16-bit activations: when a runtime learns to run them fast, this fails."""

from __future__ import annotations

import pytest

from benchmarks.sixteen_bit import Row, markdown, measured, wins


def test_16_bits_win_only_if_faster_than_float_and_less_noisy_than_int8() -> None:
    def row(milliseconds: float, decibels: float) -> Row:
        return Row(
            "k", "r", {"INT8": 1.0, "float": 2.0, "16-bit": milliseconds}, {"INT8": 40.0, "16-bit": decibels}
        )

    assert wins(row(1.5, 50.0)) and not wins(row(2.5, 50.0)) and not wins(row(1.5, -2.0))
    assert "16 bits win: k in r" in markdown([row(1.5, 50.0)]) and "Nowhere" in markdown([row(2.5, 50.0)])


@pytest.mark.slow
def test_no_runtime_runs_a_convolution_with_16_bit_activations_faster_than_in_float() -> None:
    rows = measured("depthwise 3×3, 128 channels")
    assert len({row.runtime for row in rows}) == 2
    for row in rows:
        assert not wins(row), row
        assert row.decibels["16-bit"] > row.decibels["INT8"], "not the kernel we thought to measure"
