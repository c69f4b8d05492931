from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.power.meter import FEWEST_IDLE_INTERVALS, Activity, EnergyMeter
from edgewright_agent.power.sensor import EnergyCounter, SampledPower

REST = Activity(0, 0.0)


@dataclass
class Load:
    """A device whose draw the test sets, with a sensor that is right."""

    watts: float | None = 2.0
    sensor: SampledPower = field(init=False)

    def __post_init__(self) -> None:
        self.sensor = SampledPower("wattmeter", lambda: self.watts, lambda: 0.1, period_s=1.0)


def test_energy_is_the_integral_over_readings_with_their_times() -> None:
    load = Load()
    meter = EnergyMeter(load.sensor)
    for now_s, watts in ((0.0, 2.0), (1.0, 2.0), (3.0, 4.0), (4.0, 4.0)):
        load.watts = watts
        meter.sample(now_s, REST)
    figure = meter.take()
    assert figure is not None
    assert (figure.sensor, figure.period_s, figure.seconds) == ("wattmeter", 1.0, 4.0)
    assert figure.joules == pytest.approx(2.0 + 6.0 + 4.0)
    assert figure.watts == pytest.approx(3.0)
    assert meter.take() is None


def test_the_sensor_is_not_read_more_often_than_it_is_worth() -> None:
    reads = []
    sensor = SampledPower("slow", lambda: reads.append(1) or 1.0, period_s=10.0)
    meter = EnergyMeter(sensor)
    for second in range(30):
        meter.sample(float(second), REST)
    assert len(reads) == 3


def test_without_a_reading_there_is_no_figure() -> None:
    load = Load(watts=None)
    meter = EnergyMeter(load.sensor)
    for second in range(10):
        meter.sample(float(second), REST)
    assert meter.take() is None


def test_idle_power_is_taken_off_once_it_is_known() -> None:
    load = Load(watts=2.0)
    meter = EnergyMeter(load.sensor)
    inferences, figures = 0, []
    for second in range(41):
        at_work = second > 20
        # The trapezium of the interval in which the load changes belongs to neither.
        load.watts = 5.0 if at_work else 2.0
        inferences += at_work
        meter.sample(float(second), Activity(inferences, 0.1 * inferences))
        if second in (3, 20, 40):
            figures.append(meter.take())
    first, idle, busy = figures
    assert first is not None and first.idle_w is None and first.above_idle_j is None
    assert idle is not None and idle.idle_w == 2.0 and idle.above_idle_j == pytest.approx(0.0)
    assert busy is not None and busy.idle_w == 2.0
    assert busy.above_idle_j == pytest.approx(19 * 3.0 + 1.5)


def test_a_device_that_is_never_at_rest_has_no_figure_above_idle() -> None:
    load = Load()
    meter = EnergyMeter(load.sensor)
    for second in range(100):
        meter.sample(float(second), Activity(second, 0.01 * second))
    figure = meter.take()
    assert figure is not None and figure.idle_w is None


def test_an_inference_of_several_intervals_does_not_count_as_rest() -> None:
    load = Load(watts=9.0)
    meter = EnergyMeter(load.sensor)
    for second in range(FEWEST_IDLE_INTERVALS + 4):
        meter.sample(float(second), REST)
    meter.sample(float(FEWEST_IDLE_INTERVALS + 4), Activity(1, FEWEST_IDLE_INTERVALS + 3.5))
    figure = meter.take()
    assert figure is not None and figure.idle_w is None


def test_the_uncertainty_is_the_sensors_and_twice_the_standard_error_of_the_readings() -> None:
    load = Load()
    meter = EnergyMeter(load.sensor)
    for second, watts in enumerate((1.0, 1.0, 3.0, 3.0, 3.0)):
        load.watts = watts
        meter.sample(float(second), REST)
    figure = meter.take()
    assert figure is not None
    # Intervals of 1, 2, 3 and 3 W over 4 s: a standard deviation of 0.957 W.
    assert figure.uncertainty_j == pytest.approx(0.1 * 4 + 2 * 0.957427 / 2 * 4)


def test_a_counter_has_no_error_of_sampling(tmp_path: pytest.TempPathFactory) -> None:
    counter = tmp_path / "energy"  # type: ignore[operator]
    meter = EnergyMeter(EnergyCounter("counter", ((counter, None),), step_j=1e-3, period_s=1.0))
    for second, microjoules in enumerate((0, 1_000_000, 9_000_000)):
        counter.write_text(str(microjoules))
        meter.sample(float(second), REST)
    figure = meter.take()
    assert figure is not None and figure.joules == 9.0
    assert figure.uncertainty_j == pytest.approx(2e-3)


def test_an_uncertainty_that_nobody_states_is_absent() -> None:
    meter = EnergyMeter(SampledPower("unknown", lambda: 1.0, period_s=1.0))
    for second in range(5):
        meter.sample(float(second), REST)
    figure = meter.take()
    assert figure is not None and figure.uncertainty_j is None


@given(
    st.lists(st.tuples(st.floats(0.5, 3.0), st.floats(0.0, 100.0)), min_size=2, max_size=30),
    st.integers(1, 5),
)
def test_windows_add_up_to_the_whole_however_they_are_cut(
    steps: list[tuple[float, float]], every: int
) -> None:
    load = Load()
    load.sensor.period_s = 0.5
    cut, whole = EnergyMeter(load.sensor), 0.0
    now_s, last, joules = 0.0, steps[0][1], 0.0
    load.watts = last
    cut.sample(now_s, REST)
    for index, (step, watts) in enumerate(steps):
        now_s += step
        whole += step * (last + watts) / 2
        load.watts = last = watts
        cut.sample(now_s, REST)
        if index % every == 0:
            figure = cut.take()
            joules += figure.joules if figure else 0.0
    figure = cut.take()
    joules += figure.joules if figure else 0.0
    assert joules == pytest.approx(whole)
