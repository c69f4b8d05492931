"""The doctor on a healthy device, and on one ailment after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.config import load_config
from edgewright_agent.doctor import Finding, examine
from edgewright_agent.slots import Slots


def findings(device: Any, root: Path = Path("/")) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(load_config(device.config), root=root)}


def test_a_device_that_was_never_asked_for_anything_lacks_a_release_and_no_more(
    device: Any, registry: Any
) -> None:
    registry.release("1.0.0")
    found = findings(device)
    assert [f for f in found.values() if f.health == "failed"] == []
    assert (found["agent"].health, found["slots"].health) == ("warning", "warning")
    assert found["broker"].says.startswith(f"127.0.0.1:{device.port} accepts this device in ")
    assert found["registry"].says == "1 releases, 1 for x86-64-gateway"
    assert found["runtime"].says.startswith("onnxruntime ")


def test_a_broker_that_is_gone_is_named_with_what_to_do(device: Any, registry: Any, broker: Any) -> None:
    registry.release("1.0.0")
    broker.stop()
    found = findings(device)["broker"]
    assert (found.health, bool(found.remedy)) == ("failed", True)
    assert f"127.0.0.1:{device.port}" in found.says


def test_a_registry_without_anything_for_this_profile_is_a_failure(device: Any, registry: Any) -> None:
    assert findings(device)["registry"].health == "failed"
    registry.release("1.0.0", profile="raspberry-pi-5")
    found = findings(device)["registry"]
    assert (found.health, found.remedy) == ("failed", "convert with --profile x86-64-gateway")


def test_a_slot_with_one_flipped_byte_is_found(device: Any, registry: Any) -> None:
    from edgewright.artifact.release import find_artifact
    from edgewright.twin import DesiredState

    release = registry.release("1.0.0")
    slots = Slots.open(device.folder / "state")
    content = slots.install(find_artifact(registry.root), release)
    slots.switch(content, DesiredState(release=release, rollout="first"))
    slots.commit()
    assert findings(device)["slots"].says == "sorter:1.0.0 in slot a, every digest right"
    blob = max((slots.folder(content) / "blobs" / "sha256").iterdir(), key=lambda p: p.stat().st_size)
    data = blob.read_bytes()
    blob.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    found = findings(device)["slots"]
    assert found.health == "failed" and blob.name[:12] in found.says


def test_a_profile_of_another_processor_is_a_failure(device: Any, registry: Any) -> None:
    registry.release("1.0.0", profile="raspberry-pi-5")
    device.settings["profile"] = "raspberry-pi-5"
    found = findings(device)["profile"]
    assert found.health == "failed" and "aarch64" in found.says


def test_a_store_of_samples_is_asked_to_take_one_and_keeps_nothing(
    device: Any, registry: Any, tmp_path: Path
) -> None:
    registry.release("1.0.0")
    assert "samples" not in findings(device)
    device.tables["sampling"] = {"store": "input", "url": str(tmp_path / "share")}
    missing = findings(device)["samples"]
    assert (missing.health, missing.remedy) == ("failed", "make or mount it")
    (tmp_path / "share").mkdir()
    assert findings(device)["samples"].health == "ok"
    assert [path for path in (tmp_path / "share").rglob("*") if path.is_file()] == []
    device.tables["sampling"] = {"store": "input"}
    assert "sent nowhere" in findings(device)["samples"].says


def test_a_bucket_that_is_away_and_credentials_that_others_may_read_are_failures(
    device: Any, registry: Any, tmp_path: Path
) -> None:
    registry.release("1.0.0")
    secret = tmp_path / "s3.toml"
    secret.write_text('access_key = "a"\nsecret_key = "a secret of the bucket"\n')
    secret.chmod(0o644)
    bucket = {
        "store": "input",
        "url": "s3://samples?endpoint=http://127.0.0.1:9",
        "credentials_file": str(secret),
    }
    device.tables["sampling"] = bucket
    found = findings(device)["samples"]
    assert (found.health, found.remedy) == ("failed", f"chmod 600 {secret}")
    secret.chmod(0o600)
    found = findings(device)["samples"]
    assert found.health == "failed" and "127.0.0.1:9" in found.says and "a secret" not in found.says


def test_a_clock_before_the_registrys_last_change_is_a_failure(device: Any, registry: Any) -> None:
    registry.release("1.0.0")
    assert findings(device)["clock"].health == "ok"
    tomorrow = time.time() + 86_400
    os.utime(registry.root / "index.json", (tomorrow, tomorrow))
    assert findings(device)["clock"].health == "failed"


def test_a_state_folder_that_everyone_may_write_is_a_failure(device: Any, registry: Any) -> None:
    registry.release("1.0.0")
    state = device.folder / "state"
    state.mkdir()
    assert findings(device)["state folder"].health == "ok"
    state.chmod(0o777)
    found = findings(device)["state folder"]
    assert (found.health, found.remedy) == ("failed", f"chmod o-w {state}")


def test_a_user_without_a_name_is_called_by_number(device: Any, registry: Any) -> None:
    registry.release("1.0.0")
    state = device.folder / "state"
    state.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(state, 54_321, -1)
    found = findings(device)["state folder"]
    assert found.health == "warning" and "belongs to user 54321" in found.says


def test_sensors_are_named_from_a_recorded_tree(device: Any, registry: Any, tmp_path: Path) -> None:
    registry.release("1.0.0")
    zone = tmp_path / "recorded/sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("61500\n")
    found = findings(device, tmp_path / "recorded")
    assert (found["heat"].health, found["heat"].says) == ("ok", "62 °C at cpu-thermal")
    assert findings(device, tmp_path)["heat"].health == "warning"


@pytest.mark.slow
def test_the_command_exits_with_3_where_a_check_failed_and_gives_scripts_json(
    device: Any, registry: Any, broker: Any
) -> None:
    registry.release("1.0.0")
    program = [
        str(Path(sys.executable).parent / "edgewright"),
        "agent",
        "doctor",
        "--config",
        str(device.config),
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "accepts this device" in done.stdout
    broker.stop()
    done = subprocess.run([*program, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert [f["check"] for f in json.loads(done.stdout) if f["health"] == "failed"] == ["broker"]
