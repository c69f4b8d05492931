"""A real agent process, a real broker, real artifacts: what a fleet sees of a device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

HAPPY = ["downloading", "verifying", "proving", "switching", "watching", "committed"]


def serving(report: Any) -> str | None:
    return report.running.release.version if report.running else None


def with_release(device: Any, fleet: Any, registry: Any, version: str = "1.0.0", **how: Any) -> Any:
    """A started device that has kept a release by the rollout `first`."""
    release = registry.release(version, **how)
    device.start()
    fleet.desire(release, "first")
    fleet.wait_for_phase("committed", "first")
    return release


def recorded(tmp_path: Path, index: int) -> dict[str, Any]:
    """A source of one sample for the table models."""
    np.savez(tmp_path / "inputs.npz", x=np.array([[index]], np.int64))
    return {"kind": "npz", "path": str(tmp_path / "inputs.npz"), "rate_hz": 50.0}


def test_a_device_takes_a_release_and_reports_what_it_measures(
    device: Any, fleet: Any, registry: Any
) -> None:
    release = registry.release("1.0.0")
    device.start()
    fleet.wait(lambda: bool(fleet.statuses) and bool(fleet.reports))
    assert fleet.statuses[-1].online
    assert (fleet.reports[-1].phase, fleet.reports[-1].running) == ("idle", None)

    fleet.desire(release, "first")
    report = fleet.wait_for_phase("committed", "first")
    assert fleet.phases("first") == HAPPY
    assert report.running.release == report.target == release
    assert report.running.runtime.startswith("onnxruntime ")
    assert report.reason is None

    fleet.wait(lambda: sum(window.latency.count for window in fleet.windows) >= 25)
    window = fleet.windows[-1]
    assert (window.fleet, window.device, window.profile) == ("plant", "line-3", "x86-64-gateway")
    assert (window.release, window.errors) == (release.digest, 0)
    assert 1e-6 < window.latency.quantile(0.5) < 0.1

    newer = registry.release("1.1.0")
    fleet.desire(newer, "second")
    assert fleet.wait_for_phase("committed", "second").running.release == newer
    # While the new one was fetched and proved, the old one served.
    before = [serving(report) for report in fleet.reports if report.rollout == "second"]
    assert before[: HAPPY.index("switching") + 1].count("1.0.0") >= 3

    assert device.stop() == 0
    fleet.wait(lambda: not fleet.statuses[-1].online)
    sequences = [report.sequence for report in fleet.reports]
    assert sequences == sorted(set(sequences))


def test_a_corrupt_release_fails_with_a_reason_and_the_old_one_serves_on(
    device: Any, fleet: Any, registry: Any
) -> None:
    with_release(device, fleet, registry)
    newer = registry.release("1.1.0")
    registry.flip_a_byte_of_the_model("1.1.0")
    fleet.desire(newer, "second")
    report = fleet.wait_for_phase("failed", "second")
    assert serving(report) == "1.0.0"
    assert "its digest does not match" in report.reason
    assert fleet.phases("second") == ["downloading", "failed"]
    seen = len(fleet.windows)
    fleet.wait(lambda: len(fleet.windows) > seen + 1)
    assert fleet.windows[-1].version == "1.0.0"


def test_a_device_whose_registry_is_away_takes_the_release_by_itself_when_it_is_back(
    device: Any, fleet: Any, registry: Any
) -> None:
    with_release(device, fleet, registry)
    newer, gone = registry.release("1.1.0"), registry.root.with_name("gone")
    registry.root.rename(gone)
    fleet.desire(newer, "second")
    fleet.wait(lambda: fleet.reports[-1].phase == "downloading" and fleet.reports[-1].reason is not None)
    assert "is not an artifact or registry folder" in fleet.reports[-1].reason
    assert serving(fleet.reports[-1]) == "1.0.0"
    gone.rename(registry.root)
    assert fleet.wait_for_phase("committed", "second").running.release == newer


def test_a_release_that_computes_something_else_is_never_served(
    device: Any, fleet: Any, registry: Any
) -> None:
    with_release(device, fleet, registry)
    fleet.desire(registry.release("1.1.0", wrong_golden=True), "second")
    report = fleet.wait_for_phase("failed", "second")
    assert serving(report) == "1.0.0"
    assert report.reason.startswith("golden check: 4 golden vectors: output scores")
    assert fleet.phases("second") == ["downloading", "verifying", "proving", "failed"]


def test_a_failed_release_is_tried_again_only_when_another_rollout_asks(
    device: Any, fleet: Any, registry: Any
) -> None:
    with_release(device, fleet, registry)
    newer = registry.release("1.1.0", wrong_golden=True)
    fleet.desire(newer, "second")
    fleet.wait_for_phase("failed", "second")
    fleet.desire(newer, "second")
    fleet.wait(lambda: fleet.phases("second").count("failed") == 2)
    assert fleet.phases("second").count("downloading") == 1
    # Not after a restart either, when the broker delivers the retained message anew.
    device.kill()
    device.start()
    fleet.wait(
        lambda: fleet.phases("second").count("failed") >= 4
    )  # once at its start, once when asked again
    assert fleet.phases("second").count("downloading") == 1
    assert "golden check" in fleet.reports[-1].reason

    fleet.desire(newer, "third")
    fleet.wait_for_phase("failed", "third")
    assert fleet.phases("third").count("proving") == 1


def test_a_release_that_fails_while_it_is_watched_is_rolled_back(
    device: Any, fleet: Any, registry: Any, tmp_path: Path
) -> None:
    device.source = recorded(tmp_path, 5)
    device.settings["watch_s"] = 1.0
    device.settings["state_dir"] = str(tmp_path / "state")
    with_release(device, fleet, registry, kind="lookup", rows=8)
    fleet.desire(registry.release("1.1.0", kind="lookup", rows=3), "second")
    report = fleet.wait_for_phase("failed", "second")
    assert fleet.phases("second") == [*HAPPY[:-1], "rolling-back", "failed"]
    assert serving(report) == "1.0.0"
    assert report.reason.endswith("inferences failed while watching, more than 5%")
    fleet.wait(lambda: any(window.errors for window in fleet.windows))
    failing = next(window for window in fleet.windows if window.errors)
    assert failing.version == "1.1.0"


def test_a_release_that_hangs_while_it_is_watched_makes_the_agent_restart_and_go_back(
    device: Any, fleet: Any, registry: Any, tmp_path: Path
) -> None:
    np.savez(tmp_path / "inputs.npz", x=np.full((1, 1, 3), 2_000_000_000, np.int32))
    device.source = {"kind": "npz", "path": str(tmp_path / "inputs.npz"), "rate_hz": 50.0}
    device.settings |= {"state_dir": str(tmp_path / "state"), "watch_hang_s": 1.0}
    with_release(device, fleet, registry, kind="counting", rows=0)
    fleet.desire(registry.release("1.1.0", kind="counting", rows=1), "second")
    assert device.process.wait(40) == 70
    device.start()  # as a supervisor does
    report = fleet.wait_for_phase("failed", "second")
    assert report.reason == "an inference did not end within 1 s while watching"
    fleet.wait(lambda: serving(fleet.reports[-1]) == "1.0.0" and fleet.reports[-1].boot == report.boot)
    seen = len(fleet.windows)
    fleet.wait(lambda: len(fleet.windows) > seen + 1)
    assert fleet.windows[-1].version == "1.0.0"


def test_an_older_release_is_refused_unless_a_revert_is_meant(device: Any, fleet: Any, registry: Any) -> None:
    older = registry.release("1.9.0")
    with_release(device, fleet, registry, "1.10.0")
    fleet.desire(older, "second")
    report = fleet.wait_for_phase("failed", "second")
    assert serving(report) == "1.10.0"
    assert "sorter:1.9.0 is older than sorter:1.10.0" in report.reason
    fleet.desire(older, "third", revert=True)
    assert serving(fleet.wait_for_phase("committed", "third")) == "1.9.0"


def test_a_release_under_a_false_name_is_refused(device: Any, fleet: Any, registry: Any) -> None:
    old = registry.release("0.9.0")
    with_release(device, fleet, registry)
    fleet.desire(old.model_copy(update={"version": "2.0.0"}), "second")
    report = fleet.wait_for_phase("failed", "second")
    assert serving(report) == "1.0.0"
    assert "holds sorter:0.9.0 for x86-64-gateway, not sorter:2.0.0" in report.reason


def test_a_release_without_an_artifact_for_this_profile_says_what_it_has(
    device: Any, fleet: Any, registry: Any
) -> None:
    device.start()
    fleet.desire(registry.release("1.0.0", profile="raspberry-pi-5"), "first")
    report = fleet.wait_for_phase("failed", "first")
    assert "no artifact for profile 'x86-64-gateway'" in report.reason
    assert "raspberry-pi-5 (onnx)" in report.reason


def test_a_device_killed_while_it_watches_serves_the_last_good_model(
    device: Any, fleet: Any, registry: Any
) -> None:
    with_release(device, fleet, registry)
    device.stop()
    device.settings["watch_s"] = 60.0
    device.start()
    newer = registry.release("1.1.0")
    fleet.desire(newer, "second")
    assert serving(fleet.wait_for_phase("watching", "second")) == "1.1.0"
    device.kill()
    # Nobody said goodbye: the broker speaks the last will.
    fleet.wait(lambda: not fleet.statuses[-1].online)
    device.start()
    fleet.wait(lambda: fleet.statuses[-1].online)
    report = fleet.wait_for_phase("failed", "second")
    assert serving(report) == "1.0.0"
    assert report.reason == "the agent restarted while the new release was still watched"


def test_a_device_killed_while_it_proves_serves_the_last_good_model_and_tries_again(
    device: Any, fleet: Any, registry: Any
) -> None:
    with_release(device, fleet, registry)
    fleet.desire(registry.release("1.1.0", kind="endless"), "second")
    fleet.wait_for_phase("proving", "second")
    slot = str(device.folder / "state" / "b")
    until(lambda: proving(slot))
    device.kill()
    until(lambda: not proving(slot))  # the hanging model does not outlive the agent
    device.settings["prove_timeout_s"] = 1.5
    device.start()
    report = fleet.wait_for_phase("failed", "second")
    assert serving(report) == "1.0.0"
    assert report.reason == "golden check: the golden vectors did not finish within 1.5 s"


def test_a_device_that_is_stopped_while_it_watches_takes_the_update_after_its_restart(
    device: Any, fleet: Any, registry: Any
) -> None:
    with_release(device, fleet, registry)
    device.stop()
    device.settings["watch_s"] = 60.0
    device.start()
    fleet.desire(registry.release("1.1.0"), "second")
    fleet.wait_for_phase("watching", "second")
    assert device.stop() == 0
    device.settings["watch_s"] = 0.4
    device.start()
    assert serving(fleet.wait_for_phase("committed", "second")) == "1.1.0"


def test_a_corrupt_slot_is_never_loaded_and_is_mended_from_the_registry(
    device: Any, fleet: Any, registry: Any
) -> None:
    with_release(device, fleet, registry)
    fleet.desire(registry.release("1.1.0"), "second")
    fleet.wait_for_phase("committed", "second")
    device.stop()
    for blob in (device.folder / "state" / "b" / "blobs" / "sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    device.start()

    # The broker delivers the retained wish at once, so that this report is soon not the last one.
    def restored() -> list[Any]:
        return [report for report in fleet.reports if report.phase == "failed" and report.rollout is None]

    fleet.wait(lambda: bool(restored()))
    assert serving(restored()[0]) == "1.0.0"
    assert "slot b cannot be used" in (restored()[0].reason or "")
    assert serving(fleet.wait_for_phase("committed", "second")) == "1.1.0"


def test_a_device_serves_without_a_broker_and_finds_it_again(
    device: Any, fleet: Any, registry: Any, broker: Any
) -> None:
    with_release(device, fleet, registry)
    device.stop()
    boot = fleet.statuses[-1].boot
    broker.stop()
    device.start()
    until(lambda: "cannot be reached" in device.log)
    spool = device.folder / "state" / "spool"
    until(lambda: len(list(spool.glob("[0-9]*"))) >= 2)
    back_ns = time.time_ns()
    broker.start()
    # The windows of the time without a broker were kept; they may arrive after the first one of the time with.
    fleet.wait(lambda: {0, 1, 2} <= {w.sequence for w in fleet.windows if w.boot != boot})
    windows = [window for window in fleet.windows if window.boot != boot]
    assert {window.version for window in windows} == {"1.0.0"}
    assert min(window.end_ns for window in windows) < back_ns
    assert len({window.sequence for window in windows}) == len(windows)
    fleet.wait(lambda: fleet.statuses[-1].boot != boot)
    assert fleet.statuses[-1].online
    assert device.log.count("cannot be reached") == 1


def test_what_is_not_a_desired_state_changes_nothing(device: Any, fleet: Any, registry: Any) -> None:
    with_release(device, fleet, registry)
    for payload in (b"", b"{", b"\xff", b'{"schema":1,"wish":"more"}'):
        fleet._client.publish("edgewright/v1/plant/line-3/desired", payload, qos=1)
    fleet.desire(registry.release("1.1.0"), "second")
    assert serving(fleet.wait_for_phase("committed", "second")) == "1.1.0"
    assert device.log.count("edgewright/v1/plant/line-3/desired: ") == 3
    assert "Traceback" not in device.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_device_says_goodbye_and_exits_with_zero(
    device: Any, fleet: Any, registry: Any, number: int
) -> None:
    with_release(device, fleet, registry)
    os.kill(device.process.pid, number)
    assert device.process.wait(10) == 0
    fleet.wait(lambda: not fleet.statuses[-1].online)
    assert "Traceback" not in device.log


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"wacht_s": 3}, "agent.toml: wacht_s: no such key"),
        ({"profile": "raspberry-pi"}, "no hardware profile 'raspberry-pi'; did you mean 'raspberry-pi-"),
        ({"state_dir": "agent.toml"}, "agent.toml"),
    ],
)
def test_a_configuration_that_does_not_hold_is_one_line_and_exit_code_2(
    device: Any, change: dict[str, Any], line: str
) -> None:
    device.settings |= change
    command = [
        str(Path(sys.executable).parent / "edgewright"),
        "agent",
        "run",
        "--config",
        str(device.config),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("edgewright: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def proving(slot: str) -> bool:
    """Whether a process that proves this slot is alive."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if slot.encode() in command and b"edgewright_agent.proving_process" in command and state != "Z":
            return True
    return False


def test_an_artifact_that_failed_its_gate_is_refused_and_the_old_one_serves_on(
    device: Any, fleet: Any, registry: Any
) -> None:
    with_release(device, fleet, registry)
    fleet.desire(registry.release("1.1.0", verdict="fail"), "second")
    report = fleet.wait_for_phase("failed", "second")
    assert report.reason is not None and "accept_failed_artifacts = true in agent.toml" in report.reason
    assert report.reason.startswith("the artifact failed its gate: accuracy fell by 9 points; ")
    assert serving(report) == "1.0.0"
    # One whose accuracy stayed open is marked so, and taken.
    fleet.desire(registry.release("1.2.0", verdict="inconclusive"), "third")
    assert serving(fleet.wait_for_phase("committed", "third")) == "1.2.0"


def test_a_device_that_is_told_to_takes_an_artifact_that_failed_its_gate(
    device: Any, fleet: Any, registry: Any
) -> None:
    device.settings["accept_failed_artifacts"] = True
    with_release(device, fleet, registry, verdict="fail")
