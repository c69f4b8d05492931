"""The whole loop: what two devices see changes, their model is retrained, and a canary lets the better one in."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from conftest import PROFILE, free_port, until
from edgewright.artifact.layout import Layout
from edgewright.artifact.model_card import read_card
from edgewright.artifact.release import open_release
from edgewright.mqtt import BrokerSettings
from edgewright.object_store import open_store
from edgewright.runtime.quantised_io import real_output
from edgewright_fleet.retraining.field_data.catalogue import Found, fetch, find_samples
from system.small_digits import small_digits

pytestmark = pytest.mark.slow

Array = NDArray[Any]
DEVICES = ("one", "two")


def edgewright(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "edgewright_cli.main", *map(str, arguments)]


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        edgewright(*arguments), cwd=folder, capture_output=True, text=True, check=False, timeout=400
    )


@contextlib.contextmanager
def process(folder: Path, *arguments: str | Path, end: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    started = subprocess.Popen(edgewright(*arguments), cwd=folder)
    try:
        yield
    finally:
        started.send_signal(end)
        started.wait(30)


@contextlib.contextmanager
def agents(folder: Path, mosquitto: BrokerSettings, data: str) -> Iterator[None]:
    """Two devices that see what is in `data`, keep a share of it, and sketch it every two seconds."""
    with contextlib.ExitStack() as stack:
        for device in DEVICES:
            config = folder / f"{device}.toml"
            config.write_text(f"""
fleet = "f"
device = "{device}"
profile = "{PROFILE}"
registry = "registry"
state_dir = "{device}"
telemetry_period_s = 0.5
sketch_period_s = 2.0
sketch_samples = 100
watch_s = 0.5
[broker]
port = {mosquitto.port}
[source]
kind = "npz"
path = "{data}"
rate_hz = 60
[sampling]
store = "input"
url = "samples"
uniform_share = 1.0
samples_per_hour = 100000
bytes_per_day = 1_000_000_000
""")
            stack.enter_context(process(folder, "agent", "run", "--config", config))
        yield


def label(folder: Path, shown: Array, truth: Array) -> int:
    """Label every sample in the store as a person would, who sees it; how many are of the second half."""
    rows, changed = ["digest,label"], 0
    store = open_store(str(folder / "samples"))
    for found in find_samples(store):
        assert isinstance(found, Found)
        _, (stored,) = fetch(store, found)
        real = real_output(stored, found.sample.tensors[0].spec)
        nearest = np.abs(shown - real).sum(axis=(1, 2, 3)).argmin()
        rows.append(f"{found.digest},{truth[nearest]}")
        changed += nearest >= len(shown) // 2
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return changed


def test_a_change_in_the_field_ends_in_a_better_release_on_every_device(
    tmp_path: Path, mosquitto: BrokerSettings
) -> None:
    x, y = small_digits()
    np.savez(tmp_path / "train.npz", x=x[:900], y=y[:900])
    np.savez(tmp_path / "test.npz", x=x[900:1300], y=y[900:1300])
    np.savez(tmp_path / "day.npz", x=x[1300:])
    np.savez(tmp_path / "night.npz", x=1 - x[1300:])  # dark on bright becomes bright on dark
    (tmp_path / "samples").mkdir()
    (tmp_path / "digits_task.py").write_text((Path(__file__).parent / "digits_task.py").read_text())
    broker = f"{mosquitto.host}:{mosquitto.port}"
    rollout = {
        "name": "digits",
        "fleet": "f",
        "release": "digits:1.0.0",
        "registry": "registry",
        "waves": [1, "rest"],
        "max_unavailable": 0.5,
        # Microseconds on a shared machine; and the answers are meant to change.
        "gates": {
            "max_p50_ratio": 50,
            "max_p99_ratio": 500,
            "max_class_distance": 1,
            "min_inferences": 50,
            "window_s": 1,
            "timeout_s": 60,
        },
    }
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(rollout))
    spec = {
        "name": "digits",
        "fleet": "f",
        "model": "digits_task:net",
        "release": "digits",
        "registry": "registry",
        "hub": "hub.sqlite",
        "training": {
            "function": "digits_task:train",
            "parameters": {"steps": 800, "rate": 0.003},
            "processes_per_node": 2,
        },
        "triggers": {"drift": {"min_devices": 2}, "cooldown_s": 0},
        "data": {
            "training": "train.npz",
            "evaluation": "test.npz",
            "samples": "samples",
            "labels": "labels.csv",
        },
        "conversion": {
            "profiles": [PROFILE],
            "formats": ["onnx"],
            "effort": "quick",
            "precision": "int8",
            "max_drop": 5,
        },
        "promotion": {
            "criteria": {"max_loss": 5, "max_group_loss": 10, "max_latency_ratio": 50},
            "rollout": "rollout.yaml",
            "start": True,
        },
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    options = ("--broker", broker, "--store", "rollouts.sqlite")

    def devices() -> list[dict[str, str]]:
        done = run(tmp_path, "fleet", "devices", "--fleet", "f", "--broker", broker, "--json")
        found: list[dict[str, str]] = json.loads(done.stdout)
        return found

    first = run(tmp_path, "retrain", "submit", "spec.yaml", "--why", "the first", *options)
    assert first.returncode == 3 and "a person decides" in first.stdout, first.stderr
    hub = (
        "fleet", "hub", "--fleet", "f", "--broker", broker, "--store", "hub.sqlite",
        "--listen", f"127.0.0.1:{free_port()}",
    )  # fmt: skip
    with process(tmp_path, *hub, end=signal.SIGINT):
        with agents(tmp_path, mosquitto, "day.npz"):
            assert until(lambda: [d["online"] for d in devices()] == ["yes", "yes"], 60)
            promoted = run(tmp_path, "retrain", "promote", "digits-0001", "--why", "none serves", *options)
            assert promoted.returncode == 0, promoted.stderr
            assert {d["release"] for d in devices()} == {"digits:1.0.0"}

            def settled() -> bool:
                done = run(tmp_path, "fleet", "drift", "--store", "hub.sqlite", "--json")
                return done.returncode == 0 and '"settled": 2' in done.stdout

            assert until(settled, 120)
        quiet = run(tmp_path, "retrain", "watch", "spec.yaml", "--once", *options)
        assert quiet.returncode == 0 and "no, drift: 0 of 2 devices" in quiet.stderr, quiet.stderr
        with agents(tmp_path, mosquitto, "night.npz"):
            assert until(lambda: run(tmp_path, "retrain", "check", "spec.yaml").returncode == 0, 100), run(
                tmp_path, "retrain", "check", "spec.yaml"
            ).stdout
            everything = np.concatenate([x[1300:], 1 - x[1300:]])
            truth = np.concatenate([y[1300:], y[1300:]])
            assert until(lambda: label(tmp_path, everything, truth) > 300, 120)
            watched = run(tmp_path, "retrain", "watch", "spec.yaml", "--once", *options)
            assert watched.returncode == 0, watched.stderr + watched.stdout
            assert {d["release"] for d in devices()} == {"digits:1.0.1"}
    history = run(tmp_path, "retrain", "history", "runs/digits-0002", "--json")
    links = json.loads(history.stdout)
    assert [link["kind"] for link in links] == [
        "trigger", "data", "training", "conversion", "comparison", "release", "rollout",
    ]  # fmt: skip
    assert links[0]["evidence"]["trigger"]["kind"] == "drift"
    assert links[4]["evidence"]["verdict"] == "better"
    assert links[6]["evidence"]["phase"] == "succeeded"
    card = read_card(open_release(Layout.open(tmp_path / "registry"), "digits:1.0.1"))
    assert card is not None and card.comparison is not None and card.decision.by == "comparison"
    assert str(card.lineage.base) == "digits:1.0.0"
    (compared,) = card.comparison.artifacts
    field = {one.data: one for one in compared.sets}["field"]
    assert field.candidate.low > field.serving.high
