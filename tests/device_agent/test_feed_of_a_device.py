"""Real agent processes: from a photo or a message to a prediction, and through a source's failures."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgewright.contract import from_json
from edgewright.prediction import Prediction
from edgewright.twin import topic

pytestmark = pytest.mark.slow


def committed(device: Any, fleet: Any, registry: Any, version: str = "1.0.0") -> None:
    device.settings.setdefault("watch_max_s", 2.0)  # without an input there is nothing to wait for
    device.start()
    fleet.desire(registry.release(version), f"r-{version}")
    fleet.wait_for_phase("committed", f"r-{version}")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait(holds: Any, device: Any, timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, device.log[-2000:]
        time.sleep(0.05)


def npy(values: list[int]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([values], np.uint8))
    return file.getvalue()


def test_messages_in_become_predictions_out_across_a_switch_of_versions(
    device: Any, fleet: Any, registry: Any, broker: Any
) -> None:
    device.source = {"kind": "mqtt", "topic": "line-3/in", "rate_hz": 100.0, "silent_s": 0.5}
    device.sink = {"kind": "mqtt"}
    committed(device, fleet, registry)
    heard: list[Prediction] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = lambda _, __, m: heard.append(from_json(Prediction, bytes(m.payload), where=m.topic))
    client.on_connect = lambda c, *_: c.subscribe(topic("plant", "line-3", "predictions"), qos=1)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()

    def sent() -> bool:
        client.publish("line-3/in", npy([1, 2, 3, 4]), qos=1)
        return bool(heard)

    wait(sent, device)
    first = heard[-1]
    assert (first.device, first.model, first.version) == ("line-3", "sorter", "1.0.0")
    assert first.values is not None
    assert len(first.values["scores"]) == 3
    assert abs(first.captured.timestamp() - time.time()) < 30
    # Noise, too much and nothing at all: reported, and no reason to end or to blame the model.
    for payload in (b"noise", bytes(5 << 20), b""):
        client.publish("line-3/in", payload, qos=1)
    wait(lambda: "no .npy file" in device.log and "has said nothing for 0.5 s" in device.log, device)
    committed_errors = sum(window.errors for window in fleet.windows)
    assert committed_errors == 0
    fleet.desire(registry.release("2.0.0"), "second")
    fleet.wait_for_phase("committed", "second")
    heard.clear()
    wait(sent, device)
    wait(lambda: heard[-1].version == "2.0.0", device)
    assert device.stop() == 0
    client.disconnect()
    client.loop_stop()


def test_a_source_that_is_not_there_at_the_start_is_waited_for_while_updates_go_on(
    device: Any, fleet: Any, registry: Any
) -> None:
    device.source = {"kind": "npz", "path": "late.npz", "rate_hz": 50.0}
    device.sink = {"kind": "jsonl", "path": "out/predictions.jsonl"}
    committed(device, fleet, registry)
    fleet.desire(registry.release("2.0.0"), "second")
    fleet.wait_for_phase("committed", "second")
    assert "late.npz: is not an .npz file that can be read" in device.log
    np.savez(device.folder / "late.npz", x=np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8))
    out = device.folder / "out" / "predictions.jsonl"
    wait(lambda: len(lines(out)) >= 10, device, 70)
    assert {line["version"] for line in lines(out)} == {"2.0.0"}
    assert len({json.dumps(line["values"]) for line in lines(out)}) == 2
    assert "the source works again" in device.log
    fleet.wait(lambda: any(window.latency.count for window in fleet.windows))
    assert sum(window.errors for window in fleet.windows) == 0
    assert device.stop() == 0


def test_a_release_that_cannot_take_what_the_source_gives_is_rolled_back(
    device: Any, fleet: Any, registry: Any
) -> None:
    np.savez(device.folder / "in.npz", x=np.array([[1, 2, 3, 4]], np.uint8))
    device.source = {"kind": "npz", "path": "in.npz", "rate_hz": 50.0}
    device.settings["watch_s"] = 1.0
    committed(device, fleet, registry)
    fleet.desire(registry.release("2.0.0", kind="lookup"), "second")  # takes one index
    report = fleet.wait_for_phase("failed", "second")
    assert report.running.release.version == "1.0.0"
    assert "inferences failed while watching" in report.reason
