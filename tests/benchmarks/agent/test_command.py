"""The benchmark of what the agent costs measures all that it is held to; its limits are for a quiet host."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.agent.results import Figure, table
from benchmarks.agent.wire import Relay

LIMITS = {30.0, 100.0, 0.7, 1.3, 35.0, 0.6, 0.5, 2.0, 60.0}


def test_a_figure_at_its_limit_is_met_unless_it_has_to_be_below() -> None:
    assert Figure("x", 30.0, "µs", "wall time", 30).met is True
    assert Figure("x", 30.1, "µs", "wall time", 30).met is False
    assert Figure("x", 1.3, "", "wall time", 1.3, below=True).met is False
    assert Figure("x", 1.0, "s", "wall time").met is None


def test_the_table_says_what_was_missed() -> None:
    rows = table([Figure("start", 0.9, "s", "wall time", 0.6, ratio=2.5, note="cold")]).splitlines()
    assert rows[-1] == "| start | 0.6 s | 0.9 s | 2.50 | **missed** | wall time; cold |"


def test_the_relay_counts_what_goes_both_ways() -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        relay = Relay(broker.getsockname()[1])
        with socket.create_connection(("127.0.0.1", relay.port)) as device:
            device.sendall(b"question")
            end, _ = broker.accept()
            with end:
                assert end.recv(100) == b"question"
                end.sendall(b"answers")
                assert device.recv(100) == b"answers"
                time.sleep(0.05)  # for the acknowledgement
                carried, segments = relay.count()
    assert carried == len(b"question" + b"answers")
    assert 5 <= segments <= 8  # three of the handshake, one each way, and acknowledgements


@pytest.mark.slow
def test_a_quick_run_measures_every_figure(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.agent", "--quick", "--output", str(tmp_path)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=root)
    assert done.returncode in (0, 1), done.stderr
    (path,) = tmp_path.glob("agent-*.json")
    found = json.loads(path.read_text())
    assert {figure["limit"] for figure in found["figures"]} == LIMITS | {None}
    assert (done.returncode == 1) == any(figure["met"] is False for figure in found["figures"])
    figures = {figure["what"]: figure["value"] for figure in found["figures"]}
    assert figures["resident memory over the bare runtime's"] > 1
    assert 10 < figures["telemetry of a device in an hour"] < 200
    assert path.with_suffix(".md").exists()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
