"""What `plan` promises, and that its simulation is the engine's own rollout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_fleet.rollout.bound import plan, simulate
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.statistics import stop_distribution
from edgewright_fleet.rollout.stopping import failure_test_of
from edgewright_fleet.rollout.waves import wave_sizes

SPEC = RolloutSpec(name="n", fleet="f", release="net:1", registry=Path("r"))


def test_simulation_one_device_at_a_time_is_the_exact_distribution() -> None:
    test = failure_test_of(Gates(), 200)
    stopped, alive = stop_distribution(test.limits, 0.1)
    seen = simulate(test, (200,), 0.1, room=1, runs=20_000)
    assert seen.stopped.mean() == pytest.approx(stopped.sum(), abs=4 * 0.5 / np.sqrt(20_000))
    exact = (stopped * np.arange(201)).sum() + 200 * alive.sum()
    assert seen.exposed.mean() == pytest.approx(exact, abs=4 * seen.exposed.std() / np.sqrt(20_000))


@pytest.mark.parametrize(("share", "limit"), [(0.05, 110), (0.1, 40), (0.3, 12)])
def test_bad_release_reaches_few_of_a_thousand_devices_though_those_in_flight_count(
    share: float, limit: float
) -> None:
    test = failure_test_of(Gates(), 1000)
    seen = simulate(test, (1000,), share, room=100, runs=20_000, population="exact")
    assert seen.exposed.mean() < limit
    assert seen.stopped.mean() > 0.999


@pytest.mark.parametrize("population", ["exact", "independent"])
def test_healthy_release_is_aborted_in_under_one_rollout_of_a_hundred(population: str) -> None:
    test = failure_test_of(Gates(), 1000)
    seen = simulate(test, (1000,), 0.01, room=100, runs=10_000, population=population)  # type: ignore[arg-type]
    # Four standard errors above what is exact for one device at a time; pacing can only lower it.
    assert seen.stopped.mean() < test.error + 4 * np.sqrt(0.01 / 10_000)
    assert seen.answer_times.mean() < 40


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.floats(0, 1),
    st.integers(1, 50),
    st.sampled_from(["exact", "independent"]),
)
def test_simulated_rollout_ends_in_one_way_and_within_its_devices(
    waves: list[int], share: float, room: int, population: str
) -> None:
    test = failure_test_of(Gates(), sum(waves))
    seen = simulate(test, waves, share, room=room, runs=50, population=population)  # type: ignore[arg-type]
    assert not (seen.stopped & seen.paused).any()
    assert ((seen.exposed >= 1) & (seen.exposed <= sum(waves))).all()
    through = ~seen.stopped & ~seen.paused
    assert (seen.exposed[through] == sum(waves)).all()
    assert (seen.answer_times >= 1).all()
    again = simulate(test, waves, share, room=room, runs=50, population=population)  # type: ignore[arg-type]
    assert (again.exposed == seen.exposed).all()


def test_plan_states_the_error_and_how_far_each_release_gets() -> None:
    made = plan(SPEC, 1000)
    assert made.waves == wave_sizes(SPEC, 1000) == (1, 100, 899)
    assert made.false_abort + made.alpha_of_metrics <= made.alpha
    assert [reach.failing for reach in made.bad] == [0.05, 0.1, 0.3, 1.0]
    assert [reach.mean_exposed for reach in made.bad] == sorted(
        (reach.mean_exposed for reach in made.bad), reverse=True
    )
    assert made.bad[-1].exposed == 1


def test_release_that_is_not_paced_by_evidence_is_faster_and_reaches_more() -> None:
    paced, free = (plan(SPEC.model_copy(update={"paced_by_evidence": on}), 1000) for on in (True, False))
    assert free.bad[0].mean_exposed > paced.bad[0].mean_exposed + 20
    assert free.healthy.answer_times < paced.healthy.answer_times


def plan_command(folder: Path, *arguments: str, **changes: object) -> tuple[int, str, str]:
    path = folder / "spec.yaml"
    fields = {"name": "n", "fleet": "f", "release": "net:1", "registry": "r", **changes}
    path.write_text(yaml.safe_dump(fields))
    command = [sys.executable, "-m", "edgewright_cli.main", "fleet", "rollout", "plan", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_command_prints_the_waves_and_the_bound(tmp_path: Path) -> None:
    code, out, _ = plan_command(tmp_path, "--devices", "200")
    assert code == 0
    assert "with probability 95%" in out
    assert "aborted with probability under 0.01" in out
    code, out, _ = plan_command(tmp_path, "--json", devices=["a", "b", "c"])
    document = json.loads(out)
    assert (code, document["devices"], document["waves"]) == (0, 3, [1, 1, 1])
    assert document["false_abort"]["failures_exact"] <= 0.01


def test_command_says_what_it_lacks_and_where_devices_are_too_few(tmp_path: Path) -> None:
    code, _, err = plan_command(tmp_path)
    assert (code, "--devices" in err) == (2, True)
    code, _, err = plan_command(tmp_path, "--devices", "10")
    assert (code, "Too few devices" in err) == (0, True)
    code, _, err = plan_command(tmp_path, "--devices", "10", gates={"bad_failure_share": 0.001})
    assert (code, "bad_failure_share must be greater" in err) == (2, True)
