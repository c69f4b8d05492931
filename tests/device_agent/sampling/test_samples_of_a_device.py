"""A real agent that keeps hard inputs, killed at will, and the command that makes a data set of what arrived."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ceph_gateway import CREDENTIALS, Gateway
from edgewright.object_store import ObjectStore, open_store

pytestmark = pytest.mark.slow

HARD, EASY = [0, 0, 0, 0], [200, 3, 90, 7]
"""Nothing in, so that all scores are alike; and something that has a clear winner."""
CLASSES = ("scratched", "dented", "fine")


def edgewright(*arguments: str, code: int = 0) -> str:
    program = str(Path(sys.executable).parent / "edgewright")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def sampling_device(
    device: Any, fleet: Any, registry: Any, tmp_path: Path, url: str, **sampling: Any
) -> None:
    np.savez(tmp_path / "inputs.npz", x=np.array([EASY, EASY, HARD, EASY], np.uint8))
    device.source = {"kind": "npz", "path": str(tmp_path / "inputs.npz"), "rate_hz": 50.0}
    device.tables["sampling"] = {
        "store": "input",
        "url": url,
        "samples_per_hour": 50_000,
        "uniform_share": 0.02,
        **sampling,
    }
    device.tables["labels"] = {"site": "lab"}
    device.start()
    fleet.desire(registry.release("1.0.0", labels=CLASSES), "first")
    fleet.wait_for_phase("committed", "first")


def until(holds: Any, device: Any, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, device.log[-3000:]
        time.sleep(0.1)


def count(store: ObjectStore) -> int:
    return len(list(store.objects()))


def test_hard_inputs_become_a_data_set_although_the_agent_is_killed_again_and_again(
    device: Any, fleet: Any, registry: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    sampling_device(device, fleet, registry, tmp_path, str(folder))
    store = open_store(str(folder))
    for round_ in range(4):
        before = count(store)
        until(lambda before=before, more=2 + 3 * round_: count(store) >= before + more, device)
        device.kill()
        device.start()
    before = count(store)
    until(lambda: count(store) >= before + 10, device)
    assert device.stop() == 0
    assert "Traceback" not in device.log

    url = ["--store", f"file://{folder}"]
    listed = json.loads(edgewright("fleet", "samples", "list", *url, "--each", "--json"))
    assert listed["unreadable"] == []
    assert len({one["digest"] for one in listed["samples"]}) == count(store) == len(listed["samples"])
    hard = [one for one in listed["samples"] if one["reason"] == "low-confidence"]
    assert len(hard) > len(listed["samples"]) / 2
    assert {one["reason"] for one in listed["samples"]} <= {"low-confidence", "uniform"}
    assert [one["confidence"] for one in hard] == pytest.approx([1 / 3] * len(hard))
    table = edgewright("fleet", "samples", "list", *url, "--by", "site")
    assert "lab" in table
    assert "low-confidence" in table

    labels = tmp_path / "labels.csv"
    rows = [f"{one['digest']},{CLASSES[number % 3]},anna" for number, one in enumerate(listed["samples"])]
    labels.write_text("\n".join(["digest,label,labeller", *rows]) + "\n")
    release = f"oci:{registry.root}:sorter:1.0.0"
    made = ["fleet", "samples", "collect", *url, "--labels", str(labels), "--model", release]
    document = json.loads(edgewright(*made, "--output", str(tmp_path / "one"), "--held-out", "0.5", "--json"))
    assert document["classes"] == list(CLASSES)
    assert sum(document["counts"].values()) == len(listed["samples"])
    # The two inputs that there are lie each in one part alone.
    for part in document["counts"]:
        file = tmp_path / f"{part}.npz"
        edgewright("fleet", "samples", "export", str(tmp_path / "one"), "--part", part, "--output", str(file))
        with np.load(file) as arrays:
            assert len(arrays["x"]) == len(arrays["y"]) == document["counts"][part]
            assert {tuple(row) for row in arrays["x"].astype(int).tolist()} <= {tuple(HARD), tuple(EASY)}
    labels.write_text(labels.read_text() + f"sha256:{'0' * 64},fine\n")
    problem = edgewright(*made, "--output", str(tmp_path / "two"), code=2)
    assert problem.count("\n") == 1
    assert f"{labels}, row {len(rows) + 2}: there is no sample" in problem
    assert not (tmp_path / "two").exists()

    forgotten = ["fleet", "samples", "forget", *url, "--fleet", "plant", "--device", "line-3", "--yes"]
    assert f"erased {len(rows)} objects" in edgewright(*forgotten)
    assert count(store) == 0


def test_samples_wait_for_a_bucket_that_is_away_and_no_secret_is_logged(
    device: Any, fleet: Any, registry: Any, tmp_path: Path, gateway: Gateway
) -> None:
    bucket = gateway.make_bucket()
    secret = tmp_path / "s3.toml"
    secret.write_text(f'access_key = "{CREDENTIALS.access_key}"\nsecret_key = "{CREDENTIALS.secret_key}"\n')
    secret.chmod(0o600)
    gateway.stop_gateway()
    try:
        sampling_device(
            device, fleet, registry, tmp_path, gateway.url(bucket, "field"), credentials_file=str(secret)
        )
        until(lambda: "samples wait" in device.log, device)
        waiting = device.folder / "state" / "samples"
        until(lambda: len(list(waiting.glob("*.sample"))) > 3, device)
        device.kill()
    finally:
        gateway.start_gateway()
    device.start()
    store = gateway.store(bucket, "field")
    until(lambda: count(store) > 6, device)
    assert device.stop() == 0
    assert CREDENTIALS.secret_key not in device.log
    assert "Traceback" not in device.log
    before = count(store)
    doctor = json.loads(edgewright("agent", "doctor", "--config", str(device.config), "--json"))
    (samples,) = (finding for finding in doctor if finding["check"] == "samples")
    assert (samples["health"], samples["says"].partition(" takes")[0]) == ("ok", f"s3://{bucket}/field")
    assert count(store) == before
    listed = json.loads(
        edgewright(
            "fleet",
            "samples",
            "list",
            "--store",
            gateway.url(bucket, "field"),
            "--credentials",
            str(secret),
            "--json",
        )
    )
    assert sum(group["samples"] for group in listed["samples"]) == count(store)


def test_an_agent_without_the_table_imports_and_writes_nothing_of_it(
    device: Any, fleet: Any, registry: Any, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from edgewright_agent.config import load_config; "
        "import edgewright_cli.agent, edgewright_agent.agent; load_config(Path(sys.argv[1])); "
        "print(*[name for name in sys.modules if 'sampling' in name or 'object_store' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(device.config)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
    device.start()
    fleet.desire(registry.release("1.0.0", labels=CLASSES), "first")
    fleet.wait_for_phase("committed", "first")
    assert device.stop() == 0
    assert not (device.folder / "state" / "samples").exists()


def test_a_table_that_is_wrong_is_one_line_and_the_agent_does_not_start(device: Any, tmp_path: Path) -> None:
    for table, match in (
        ({"store": "everything"}, "store"),
        ({"url": "/mnt/samples"}, 'needs store = "input"'),
        ({"store": "input", "url": "ftp://host"}, "no address of a store"),
        ({"store": "input", "confidence": 0.5}, "confidence: no such key"),
        ({"upload_between": "22-5"}, "upload_between"),
    ):
        device.tables["sampling"] = table
        problem = edgewright("agent", "run", "--config", str(device.config), code=2)
        assert match in problem
        assert problem.count("\n") == 1
