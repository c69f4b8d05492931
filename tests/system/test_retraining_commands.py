"""A run of a retraining survives whoever drives it, and ends and goes on when it is told to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import PROFILE, free_port, until
from edgewright_fleet.broker import embedded_broker
from edgewright_fleet.retraining.releases import serving_release
from edgewright_fleet.retraining.spec import load_spec
from fleet.simulated_device import simulated_fleet
from system.small_digits import small_digits

pytestmark = pytest.mark.slow


def edgewright(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "edgewright_cli.main", "retrain", *arguments]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A folder with a specification whose training takes long enough to be cut short."""
    x, y = small_digits()
    np.savez(tmp_path / "train.npz", x=x[:1000], y=y[:1000])
    np.savez(tmp_path / "test.npz", x=x[1000:], y=y[1000:])
    shutil.copy(Path(__file__).parent / "digits_task.py", tmp_path)
    spec = {
        "name": "digits",
        "fleet": "f",
        "model": "digits_task:net",
        "release": "digits",
        "registry": "registry",
        "training": {
            "function": "digits_task:train",
            "parameters": {"steps": 200, "rate": 0.003, "pause_s": 0.05},
            "checkpoint_period_s": 0.5,
        },
        "data": {"training": "train.npz", "evaluation": "test.npz"},
        "conversion": {"profiles": [PROFILE], "formats": ["onnx"], "effort": "quick", "max_drop": 5},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        edgewright(*arguments), cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


def status(folder: Path) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(run(folder, "status", "--json").stdout)
    return found[0] if found else {"step": None, "standing": None}


def kinds(folder: Path) -> list[str]:
    done = run(folder, "history", "digits-0001", "--json")
    return [link["kind"] for link in json.loads(done.stdout)]


def test_a_driver_that_is_killed_loses_nothing_and_two_do_not_drive_one_run(task: Path) -> None:
    driver = subprocess.Popen(edgewright("submit", "spec.yaml", "--why", "the first"), cwd=task)
    assert until(lambda: (status(task)["step"] or 0) > 10, 120)
    second = run(task, "resume", "digits-0001")
    assert second.returncode == 2 and "another process drives this run" in second.stderr
    driver.kill()
    driver.wait(20)
    resumed = run(task, "resume", "digits-0001")
    assert resumed.returncode == 3 and "held" in resumed.stdout, resumed.stderr
    assert kinds(task) == ["trigger", "data", "training", "conversion", "comparison"]
    promoted = run(task, "promote", "digits-0001", "--why", "the first")
    assert promoted.returncode == 0 and "digits:1.0.0 is in the registry" in promoted.stdout, promoted.stderr
    again = run(task, "promote", "digits-0001", "--why", "twice")
    assert again.returncode == 2 and "no candidate that waits" in again.stderr
    assert "loss" in run(task, "status").stdout


def test_a_cancelled_run_goes_on_from_its_checkpoint(task: Path) -> None:
    driver = subprocess.Popen(
        edgewright("submit", "spec.yaml"), cwd=task, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert until(lambda: (status(task)["step"] or 0) > 10, 120)
    asked = run(task, "cancel", "digits-0001", "--why", "too dear")
    assert asked.returncode == 0 and "asked the process that drives digits-0001" in asked.stdout
    out, _ = driver.communicate(timeout=120)
    assert driver.returncode == 3 and "too dear" in out
    stopped = status(task)
    assert stopped["standing"] == "stopped" and 10 < stopped["step"] < 200
    resumed = run(task, "resume", "digits-0001")
    assert resumed.returncode == 3 and "held" in resumed.stdout, resumed.stderr
    assert kinds(task)[-4:] == ["resumed", "training", "conversion", "comparison"]
    assert "goes on after step" in run(task, "logs", "digits-0001").stdout


def test_a_release_that_the_fleet_takes_back_is_exit_code_3_and_the_next_run_knows(task: Path) -> None:
    spec = yaml.safe_load((task / "spec.yaml").read_text())
    spec["training"]["parameters"] |= {"steps": 60, "pause_s": 0}
    spec["promotion"] = {"rollout": "rollout.yaml", "start": True}
    (task / "spec.yaml").write_text(yaml.safe_dump(spec))
    rollout = {
        "name": "digits", "fleet": "f", "release": "digits:1.0.0", "registry": "registry", "waves": [1, "rest"],
        "max_unavailable": 0.5, "gates": {"window_s": 1, "timeout_s": 30},
    }  # fmt: skip
    (task / "rollout.yaml").write_text(yaml.safe_dump(rollout))
    with (
        embedded_broker(free_port()) as broker,
        simulated_fleet(broker, "f", 2, None, broken="every", profile=PROFILE) as devices,
    ):
        where = ("--broker", f"{broker.host}:{broker.port}")
        assert run(task, "submit", "spec.yaml", *where).returncode == 3
        shipped = run(task, "promote", "digits-0001", "--why", "none serves", *where)
        assert shipped.returncode == 3, shipped.stdout + shipped.stderr
        assert "digits-0001 is done: rollout digits-1.0.0 failed: " in shipped.stdout, shipped.stdout
        assert "golden check: outputs differ" in shipped.stdout + shipped.stderr
        assert all(device.running is None for device in devices)
        # The record is closed: doing it again does nothing, and says the same.
        again = run(task, "resume", "digits-0001", *where)
    assert again.returncode == 3, again.stdout + again.stderr
    links = json.loads(run(task, "history", "digits-0001", "--json").stdout)
    assert links[-1]["kind"] == "rollout" and links[-1]["evidence"]["phase"] == "failed"
    wanted = load_spec(task / "spec.yaml")
    assert serving_release(wanted) is None, "what was taken back is not what a candidate must beat"


def test_a_rollout_that_pauses_for_want_of_evidence_is_exit_code_3_as_for_the_rollout_itself(
    task: Path,
) -> None:
    spec = yaml.safe_load((task / "spec.yaml").read_text())
    spec["training"]["parameters"] |= {"steps": 60, "pause_s": 0}
    spec["promotion"] = {"rollout": "rollout.yaml", "start": True}
    (task / "spec.yaml").write_text(yaml.safe_dump(spec))
    gates = {"window_s": 1, "timeout_s": 3, "min_inferences": 1_000_000}
    rollout = {"name": "digits", "fleet": "f", "release": "digits:1.0.0", "waves": ["rest"], "gates": gates}
    (task / "rollout.yaml").write_text(yaml.safe_dump(rollout))
    with (
        embedded_broker(free_port()) as broker,
        simulated_fleet(broker, "f", 1, None, profile=PROFILE),
    ):
        where = ("--broker", f"{broker.host}:{broker.port}")
        assert run(task, "submit", "spec.yaml", *where).returncode == 3
        shipped = run(task, "promote", "digits-0001", "--why", "none serves", *where)
    assert shipped.returncode == 3, shipped.stdout + shipped.stderr
    assert "digits-0001 is done: rollout digits-1.0.0 paused: " in shipped.stdout, shipped.stdout


def test_what_cannot_be_is_one_line(task: Path) -> None:
    for arguments, words in [
        (("status", "none-0001"), "is not the folder of a retraining"),
        (("submit", "none.yaml"), "does not exist"),
        (("logs", "none-0001"), "is not the folder of a retraining"),
        (("watch", "none.yaml"), "does not exist"),
    ]:
        done = run(task, *arguments)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert run(task, "check", "spec.yaml").returncode == 3
    assert json.loads(run(task, "check", "spec.yaml", "--json").stdout)[0]["because"]
    empty = run(task, "status")
    assert (empty.returncode, empty.stderr) == (0, "runs: holds no runs\n")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "digits_task:nett"}, "module 'digits_task' has no 'nett'"),
        ({"signing": {"keys": ["keys"]}}, "is not an artifact or registry folder"),
        ({"weights": "net.safetensors"}, "weights: .*net.safetensors: no such file"),
    ],
)
def test_what_would_fail_after_the_training_is_said_before_it(
    task: Path, changes: dict[str, Any], problem: str
) -> None:
    document = yaml.safe_load((task / "spec.yaml").read_text())
    (task / "spec.yaml").write_text(yaml.safe_dump(document | changes))
    done = run(task, "submit", "spec.yaml")
    name, said = done.stderr.splitlines()  # and no bar that has nothing to show
    assert done.returncode == 2 and name.startswith("digits-0001: ") and re.search(problem, said), done.stderr
    assert kinds(task) == ["trigger", "data", "stopped"]
    assert not (task / "runs" / "digits-0001" / "training").exists()
