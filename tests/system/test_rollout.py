from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from conftest import PROFILE, put_tiny, until
from edgewright.artifact.layout import Layout
from edgewright.mqtt import BrokerSettings

pytestmark = pytest.mark.slow


def edgewright(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "edgewright_cli.main", *arguments]


@pytest.fixture
def two_agents(tmp_path: Path, registry: Layout, mosquitto: BrokerSettings) -> Iterator[None]:
    """Two real agent processes behind a real mosquitto."""
    processes = []
    for device in ("one", "two"):
        config = tmp_path / f"{device}.toml"
        config.write_text(
            f'fleet = "f"\ndevice = "{device}"\nprofile = "{PROFILE}"\nregistry = "registry"\n'
            f'state_dir = "{device}"\ntelemetry_period_s = 0.5\nwatch_s = 0.5\n'
            f"[broker]\nport = {mosquitto.port}\n[source]\nrate_hz = 100\n"
        )
        processes.append(subprocess.Popen(edgewright("agent", "run", "--config", str(config))))
    yield
    for process in processes:
        process.terminate()
    assert [process.wait(20) for process in processes] == [0, 0]


def test_good_release_is_rolled_out_and_a_wrong_one_is_stopped_at_its_first_device(
    tmp_path: Path, registry: Layout, mosquitto: BrokerSettings, two_agents: None
) -> None:
    broker = f"{mosquitto.host}:{mosquitto.port}"
    store = tmp_path / "rollouts.sqlite"

    def devices() -> list[dict[str, str]]:
        command = edgewright("fleet", "devices", "--fleet", "f", "--broker", broker, "--json")
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        found: list[dict[str, str]] = json.loads(done.stdout)
        return found

    def roll_out(version: str, waves: list[int | str]) -> subprocess.CompletedProcess[str]:
        spec = tmp_path / f"{version}.yaml"
        spec.write_text(
            yaml.safe_dump(
                {
                    "schema": 1,
                    "name": f"to-{version}",
                    "fleet": "f",
                    "release": f"tiny:{version}",
                    "registry": "registry",
                    "waves": waves,
                    "max_unavailable": 0.5,
                    # Microseconds on a shared machine: the latency gate is looked at elsewhere.
                    "gates": {
                        "max_p50_ratio": 50,
                        "max_p99_ratio": 500,
                        "min_inferences": 50,
                        "window_s": 1,
                        "timeout_s": 60,
                    },
                }
            )
        )
        command = edgewright(
            "fleet", "rollout", "start", str(spec), "--broker", broker, "--store", str(store)
        )
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)

    assert until(lambda: [d["online"] for d in devices()] == ["yes", "yes"], 60)

    first = roll_out("1.0.0", ["rest"])
    assert first.returncode == 0, first.stderr
    put_tiny(registry, "1.1.0", offset=2)
    second = roll_out("1.1.0", [1, "rest"])
    assert second.returncode == 0, second.stderr
    assert "wave 2" in second.stderr
    assert {d["release"] for d in devices()} == {"tiny:1.1.0"}

    put_tiny(registry, "1.2.0", offset=3, golden_offset=9)
    third = roll_out("1.2.0", [1, "rest"])
    assert third.returncode == 3, third.stderr
    assert "golden" in third.stderr
    assert "1 of 2 devices exposed" in third.stdout
    assert {d["release"] for d in devices()} == {"tiny:1.1.0"}

    status = subprocess.run(
        edgewright("fleet", "rollout", "status", "--store", str(store), "--json"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert {entry["name"]: entry["phase"] for entry in json.loads(status.stdout)} == {
        "to-1.0.0": "succeeded",
        "to-1.1.0": "succeeded",
        "to-1.2.0": "failed",
    }
    again = roll_out("1.2.0", [1, "rest"])
    assert again.returncode == 2
    assert "has ended (failed)" in again.stderr
