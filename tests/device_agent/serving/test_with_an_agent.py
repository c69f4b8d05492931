"""A real agent process that serves applications while the fleet updates it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.runtime.model import open_model

pytestmark = pytest.mark.slow

README = Path(__file__).parents[3] / "device_agent" / "README.md"
X = [1, 2, 3, 4]


@pytest.fixture
def serving_device(device: Any, fleet: Any, registry: Any) -> Iterator[Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    device.tables["serving"] = {"socket": "api", "port": port}
    device.start()
    fleet.desire(registry.release("1.0.0"), "first")
    fleet.wait_for_phase("committed", "first")
    yield device
    assert device.stop() == 0
    assert "Traceback" not in device.log
    assert not (device.folder / "api").exists()


def scores(registry: Any, version: str) -> list[int]:
    model = open_model(registry.root.parent / f"{version}.onnx")
    return list(model.run_raw({"x": np.array([X], np.uint8)})["scores"][0].tolist())


def test_no_request_is_lost_or_mixed_up_while_the_device_is_updated(
    serving_device: Any, fleet: Any, registry: Any
) -> None:
    seen: list[tuple[str, list[int]]] = []
    stop = threading.Event()
    broken: list[str] = []
    tensor = {"name": "x", "datatype": "UINT8", "shape": [1, 4], "data": X}
    body = json.dumps({"inputs": [tensor]})

    def application() -> None:
        connection = http.client.HTTPConnection("device")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(serving_device.folder / "api"))
        with contextlib.closing(connection):
            while not stop.is_set():
                connection.request("POST", "/v2/models/sorter/infer", body)
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status != 200:
                    broken.append(str(answer))
                    return
                seen.append((answer["model_version"], answer["outputs"][0]["data"]))
                time.sleep(0.002)

    threads = [threading.Thread(target=application) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        fleet.desire(registry.release(version), version)
        fleet.wait_for_phase("committed", version)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert broken == []
    assert sorted({version for version, _ in seen}) == ["1.0.0", "1.1.0", "1.2.0", "1.3.0"]
    for version in {version for version, _ in seen}:
        assert {tuple(data) for v, data in seen if v == version} == {tuple(scores(registry, version))}
    # The API's inferences are in the telemetry, far more than the source's.
    fleet.wait(lambda: sum(window.latency.count for window in fleet.windows) >= len(seen))


def test_the_examples_of_the_readme_do_what_they_say(serving_device: Any, registry: Any) -> None:
    text = README.read_text()
    shell, python = (re.search(rf"```{kind}\n(.*?)```", text, re.S) for kind in ("sh", "python"))
    assert shell and python
    path, port = str(serving_device.folder / "api"), serving_device.tables["serving"]["port"]
    script = shell[1].replace("/run/edgewright/inference.sock", path)
    assert path in script
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=30, check=True)
    metadata, end = json.JSONDecoder().raw_decode(done.stdout)
    assert metadata["inputs"] == [{"name": "x", "datatype": "UINT8", "shape": [1, 4]}]
    assert json.loads(done.stdout[end:])["outputs"][0]["data"] == scores(registry, "1.0.0")

    program = python[1].replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    assert str(port) in program
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == str(np.array([scores(registry, "1.0.0")], np.int32))


def test_an_agent_that_was_killed_serves_at_the_same_socket_again(serving_device: Any) -> None:
    serving_device.kill()
    assert (serving_device.folder / "api").is_socket()
    serving_device.start()
    end = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("device")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.sock.connect(str(serving_device.folder / "api"))
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        assert time.monotonic() < end
        time.sleep(0.05)
