"""The scale benchmark with a small fleet: real devices' messages, a real broker, the real command."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.fleet.scale import Pace, measured
from benchmarks.fleet.scale_report import as_markdown, result_of
from benchmarks.mosquitto import MOSQUITTO


@pytest.mark.slow
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_twenty_devices_are_rolled_out_to_stopped_and_accounted_for() -> None:
    run, stop = measured(20, Pace(period_s=1.0, window_s=8.0, max_unavailable=0.9), stop=True)
    # Seven reports of an update, and telemetry before and after it.
    assert run.devices == 20 and run.events >= 20 * 9
    assert run.start_s > 0 and run.steady_s > 0 and run.peak_memory_bytes > 1e7
    assert 0 < run.floor_us["batch"] < run.event_us
    assert stop is not None and 0 < stop.first_told_s <= stop.last_told_s
    text = as_markdown(result_of([run], stop))
    assert "| 20 |" in text and "Emergency stop" in text and "A line through" not in text
    more = replace(run, devices=40, events=2 * run.events, steady_s=2 * run.steady_s)
    assert "A million devices" in as_markdown(result_of([run, more], stop))
