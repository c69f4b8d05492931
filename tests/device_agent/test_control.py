"""The commands of a person at the device, against a real agent process, and without one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import ConfigError, EdgewrightError
from edgewright_agent.control import answering, ask, state_folder_held


def command(device: Any, *words: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "edgewright")
    return subprocess.run(
        [program, "agent", *words, "--config", str(device.config)],
        capture_output=True,
        text=True,
        check=False,
    )


def document(device: Any, *words: str) -> Any:
    done = command(device, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def with_release(device: Any, fleet: Any, registry: Any) -> Any:
    release = registry.release("1.0.0")
    device.start()
    fleet.desire(release, "first")
    fleet.wait_for_phase("committed", "first")
    return release


def test_a_question_is_answered_in_a_folder_of_any_depth(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30) / ("deeper" * 30)
    folder.mkdir(parents=True)
    assert ask(folder, "status") is None
    with answering(folder, {"status": lambda: {"phase": "idle"}}):
        assert ask(folder, "status") == {"phase": "idle"}
        assert oct((folder / "control.sock").stat().st_mode & 0o777) == "0o600"
    assert ask(folder, "status") is None
    assert ask(tmp_path / "nowhere", "status") is None


def test_a_refusal_is_told_in_the_agents_own_words(tmp_path: Path) -> None:
    def refuse() -> Mapping[str, Any]:
        raise EdgewrightError("an update is downloading", remedy="wait for its end")

    with answering(tmp_path, {"rollback": refuse}):  # type: ignore[dict-item]
        with pytest.raises(EdgewrightError, match="an update is downloading; wait for its end"):
            ask(tmp_path, "rollback")
        with pytest.raises(EdgewrightError, match="does not know that request"):
            ask(tmp_path, "reboot")


def test_a_bug_in_one_answer_and_a_caller_that_says_nothing_leave_the_next_question_answered(
    tmp_path: Path,
) -> None:
    answers = {"bad": lambda: {"phase": {}["gone"]}, "status": lambda: {"phase": "idle"}}
    with answering(tmp_path, answers), socket.socket(socket.AF_UNIX) as silent:
        with pytest.raises(EdgewrightError, match="error in the agent: KeyError"):
            ask(tmp_path, "bad")
        silent.connect(str(tmp_path / "control.sock"))
        assert ask(tmp_path, "status") == {"phase": "idle"}


def test_a_socket_that_a_killed_agent_left_behind_is_no_agent(tmp_path: Path) -> None:
    script = (
        "import os, pathlib\nfrom edgewright_agent.control import answering\n"
        f"with answering(pathlib.Path({str(tmp_path)!r}), {{}}):\n    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert (tmp_path / "control.sock").exists()
    assert ask(tmp_path, "status") is None
    with answering(tmp_path, {"status": lambda: {"phase": "idle"}}):
        assert ask(tmp_path, "status") == {"phase": "idle"}


def test_one_state_folder_is_of_one_agent(tmp_path: Path) -> None:
    # A lock is of an open file, so that a second opening stands for a second process.
    folder = tmp_path / "state"
    refused = pytest.raises(ConfigError, match="another agent works in this folder")
    with state_folder_held(folder), refused, state_folder_held(folder):
        pass
    with state_folder_held(tmp_path / "state"):
        pass


@pytest.mark.slow
def test_a_person_asks_goes_back_and_reads_why(device: Any, fleet: Any, registry: Any) -> None:
    assert document(device, "status")["agent"] == "not running"
    assert command(device, "rollback").returncode == command(device, "defer").returncode == 2
    assert command(device, "status", "--ready").returncode == 3

    first = with_release(device, fleet, registry)
    second = registry.release("1.1.0")
    fleet.desire(second, "next")
    fleet.wait_for_phase("committed", "next")
    assert command(device, "status", "--ready").returncode == 0
    status = document(device, "status")
    assert (status["phase"], status["release"], status["pid"]) == (
        "committed",
        "sorter:1.1.0",
        device.process.pid,
    )
    assert status["broker"].endswith("connected") and status["errors"] == 0 < status["inferences"]

    until_s = document(device, "defer")["deferred_until_s"]
    assert 1700 < until_s - time.time() <= 1800
    fleet.wait(lambda: fleet.reports[-1].deferred_until_s == until_s)

    assert document(device, "rollback")["release"] == "sorter:1.0.0"
    report = fleet.wait_for_phase("failed", "next")
    assert (report.running.release, report.reason) == (first, "rolled back by hand")

    # The wish is retained, and must not bring back what was sent away, nor after a restart.
    device.stop()
    offline = document(device, "status")
    assert (offline["agent"], offline["release"], offline["reason"]) == (
        "not running",
        "sorter:1.0.0",
        "rolled back by hand",
    )
    assert document(device, "rollback")["release"] == "sorter:1.1.0"
    device.start()
    fleet.wait(lambda: fleet.reports[-1].running is not None and fleet.reports[-1].running.release == second)

    messages = [
        event["message"] for event in map(json.loads, command(device, "logs", "--json").stdout.splitlines())
    ]
    assert "sorter:1.1.0: committed" in messages
    assert any("sorter:1.1.0: rolling-back" in message for message in messages)


@pytest.mark.slow
def test_a_second_agent_on_the_same_folder_is_refused(device: Any, fleet: Any, registry: Any) -> None:
    with_release(device, fleet, registry)
    done = command(device, "run")
    assert done.returncode == 2
    assert "another agent works in this folder" in done.stderr.strip()
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_systemd_hears_that_the_agent_serves_and_that_it_lives(
    device: Any, fleet: Any, registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "n"))
        supervisor.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        with_release(device, fleet, registry)
        heard = [supervisor.recv(4096).decode() for _ in range(4)]
        assert "READY=1" in heard
        assert any(text.startswith("WATCHDOG=1\nSTATUS=") for text in heard)
        device.stop()
