"""Real and tiny: ONNX models of a few bytes in a real registry, a real broker, real agent processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import paho.mqtt.client as paho
import pytest
from onnx import TensorProto, helper, numpy_helper
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgewright.artifact.golden import GoldenVectors, golden_to_bytes
from edgewright.artifact.layout import Layout, digest_of
from edgewright.artifact.manifest import (
    AccuracyReport,
    ArtifactManifest,
    Classification,
    GateCheck,
    GateReport,
    GoldenPolicy,
    Provenance,
    TensorSpec,
    Verdict,
)
from edgewright.artifact.release import publish, put_artifact
from edgewright.contract import from_json, to_json
from edgewright.runtime.model import open_model
from edgewright.telemetry.window import TelemetryWindow, decode_otlp
from edgewright.twin import DesiredState, DeviceStatus, ReleaseReference, ReportedState, topic

PROFILE = "x86-64-gateway"
FLEET, DEVICE = "plant", "line-3"
Kind = Literal["matmul", "lookup", "endless", "greedy", "counting"]


def _matmul(seed: int) -> onnx.GraphProto:
    weights = np.random.default_rng(seed).integers(-50, 50, (4, 3), dtype=np.int8)
    return helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["scores"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.INT32, [1, 3])],
        [numpy_helper.from_array(weights, "w")],
    )


def _lookup(rows: int) -> onnx.GraphProto:
    """A table of `rows` rows: an index beyond them is an error of the runtime, not of the caller's types."""
    table = np.arange(rows * 3, dtype=np.int32).reshape(rows, 3)
    return helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["scores"], axis=0)],
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("scores", TensorProto.INT32, [1, 3])],
        [numpy_helper.from_array(table, "table")],
    )


def _counting(rows: int) -> onnx.GraphProto:
    """Counts to `rows` times its input's first number, and gives its input back: as slow as one likes."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Abs", ["v"], ["w"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.INT32, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.INT32, [1, 3]),
        ],
    )
    return helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["long"], to=TensorProto.INT64),
            helper.make_node("Mul", ["long", "rows"], ["trips"]),
            helper.make_node("Loop", ["trips", "", "x"], ["scores"], body=body),
        ],
        "counting",
        [helper.make_tensor_value_info("x", TensorProto.INT32, [1, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.INT32, [1, 3])],
        [numpy_helper.from_array(np.array(rows, np.int64), "rows")],
    )


def _greedy() -> onnx.GraphProto:
    """Three sums of a tensor of 256 MB that exists at run time alone."""
    elements, zero = np.array([64 << 20], np.int64), np.array([0], np.int64)
    return helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["elements"], ["large"]),
            helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["real"], ["one"], keepdims=0),
            helper.make_node("Add", ["large", "one"], ["larger"]),
            helper.make_node("ReduceMax", ["larger"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["whole"], to=TensorProto.INT32),
            helper.make_node("Expand", ["whole", "shape"], ["scores"]),
        ],
        "greedy",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.INT32, [1, 3])],
        [
            numpy_helper.from_array(elements, "elements"),
            numpy_helper.from_array(zero, "zero"),
            numpy_helper.from_array(np.array([1, 3], np.int64), "shape"),
        ],
    )


def _endless() -> onnx.GraphProto:
    """A loop whose condition always holds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.INT32, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.INT32, [1, 3]),
        ],
    )
    return helper.make_graph(
        [helper.make_node("Loop", ["", "true", "x"], ["scores"], body=body)],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.INT32, [1, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.INT32, [1, 3])],
        [numpy_helper.from_array(np.array(True), "true")],
    )


def _model_bytes(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def _gate(verdict: Verdict) -> GateReport:
    check = GateCheck(
        name="accuracy",
        verdict=verdict,
        unit="points",
        how="measured on host",
        says="accuracy fell by 9 points",
    )
    return GateReport(verdict=verdict, checks=(check,), conversion_s=1.0)


@dataclass(frozen=True)
class Registry:
    """A folder that is an OCI layout, and how a release gets into it."""

    root: Path

    def release(
        self,
        version: str,
        *,
        kind: Kind = "matmul",
        rows: int = 8,
        wrong_golden: bool = False,
        max_lsb: int = 0,
        profile: str = PROFILE,
        verdict: Verdict | None = None,
        labels: tuple[str, ...] | None = None,
    ) -> ReleaseReference:
        """Publish `sorter:VERSION`; each version computes something else. With `labels` it is a classifier."""
        seed = sum(version.encode())
        graphs = {
            "matmul": lambda: _matmul(seed),
            "lookup": lambda: _lookup(rows),
            "endless": _endless,
            "greedy": _greedy,
            "counting": lambda: _counting(rows),
        }
        graph = graphs[kind]()
        data = _model_bytes(graph)
        bytes_in = ("uint8", (1, 4))
        numbers = ("int32", (1, 3))
        spec = {"lookup": ("int64", (1,)), "endless": numbers, "counting": numbers}.get(kind, bytes_in)
        inputs = np.random.default_rng(seed).integers(0, 2, (4, *spec[1])).astype(spec[0])
        if kind == "endless":
            outputs = inputs
        else:
            file = self.root.parent / f"{version}.onnx"
            file.write_bytes(data)
            model = open_model(file)
            outputs = np.stack([model.run_raw({"x": row})["scores"] for row in inputs])
        golden = golden_to_bytes(GoldenVectors({"x": inputs}, {"scores": outputs + int(wrong_golden)}))
        tensor = {"dtype": spec[0], "shape": spec[1]}
        manifest = ArtifactManifest(
            name="sorter",
            version=version,
            profile=profile,
            format="onnx",
            precision="int8",
            runtimes=("onnxruntime",),
            model_digest=digest_of(data),
            model_bytes=len(data),
            inputs=(TensorSpec(name="x", runtime_name="x", **tensor),),
            outputs=(TensorSpec(name="scores", runtime_name="scores", shape=(1, 3), dtype="int32"),),
            golden=GoldenPolicy(
                digest=digest_of(golden),
                vectors=4,
                runtime="onnxruntime",
                max_lsb=max_lsb,
                relative_tolerance=0,
            ),
            accuracy=AccuracyReport(executed_by="onnxruntime", data="evaluation", samples=1, sqnr_db={}),
            gate=_gate(verdict) if verdict else None,
            labels=labels,
            postprocessing=Classification(output="scores") if labels else None,
            provenance=Provenance(source="made by the tests", calibration_samples=0),
        )
        layout = Layout.create(self.root)
        published = publish(layout, "sorter", version, [put_artifact(layout, manifest, data, golden)])
        return ReleaseReference(name="sorter", version=version, digest=published.digest)

    def flip_a_byte_of_the_model(self, version: str) -> None:
        """As a worn flash cell would."""
        model = (self.root.parent / f"{version}.onnx").read_bytes()
        blob = Layout.open(self.root).path_of(digest_of(model))
        blob.write_bytes(bytes([model[0] ^ 1]) + model[1:])


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Broker:
    """A mosquitto of our own on a loopback port."""

    folder: Path
    port: int = field(default_factory=_free_port)
    extra: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self, config: Path | None = None) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "install the Debian package mosquitto"
        # A session that outlives the broker's restart: nothing sent to it meanwhile is lost.
        store = f"persistence true\npersistence_location {self.folder}/\nuser root\n"
        if config is None:
            config = self.folder / "mosquitto.conf"
            config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n{store}{self.extra}")
        self.process = subprocess.Popen(
            [program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.02)
        raise AssertionError("mosquitto did not start")

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    server = Broker(tmp_path)
    server.start()
    yield server
    server.stop()


class Fleet:
    """The other end: asks for releases and keeps every message of the device."""

    def __init__(self, port: int) -> None:
        self.reports: list[ReportedState] = []
        self.statuses: list[DeviceStatus] = []
        self.windows: list[TelemetryWindow] = []
        self._news = threading.Condition()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="fleet", protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("edgewright/v1/+/+/#", qos=1)
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self._client.loop_start()

    def desire(self, release: ReleaseReference, rollout: str, *, revert: bool = False) -> None:
        state = DesiredState(release=release, rollout=rollout, revert=revert)
        self._client.publish(topic(FLEET, DEVICE, "desired"), to_json(state), qos=1, retain=True)

    def wait(self, condition: Callable[[], bool], timeout_s: float = 40.0) -> None:
        with self._news:
            assert self._news.wait_for(condition, timeout_s), f"last reports: {self.reports[-3:]}"

    def wait_for_phase(self, phase: str, rollout: str | None) -> ReportedState:
        """The last report once it is of this phase and rollout."""
        self.wait(lambda: bool(self.reports) and _is(self.reports[-1], phase, rollout))
        return self.reports[-1]

    def phases(self, rollout: str) -> list[str]:
        return [report.phase for report in self.reports if report.rollout == rollout]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        leaf = message.topic.rpartition("/")[2]
        with self._news:
            if leaf == "reported":
                self.reports.append(from_json(ReportedState, message.payload, where=leaf))
            elif leaf == "status":
                self.statuses.append(from_json(DeviceStatus, message.payload, where=leaf))
            elif leaf == "metrics":
                self.windows += decode_otlp(message.payload)
            self._news.notify_all()


def _is(report: ReportedState, phase: str, rollout: str | None) -> bool:
    return report.phase == phase and report.rollout == rollout


@pytest.fixture
def fleet(broker: Broker) -> Iterator[Fleet]:
    other_end = Fleet(broker.port)
    yield other_end
    other_end.close()


@dataclass
class Device:
    """A device's folder and the agent process that runs on it."""

    folder: Path
    registry: Path
    port: int
    settings: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=lambda: {"rate_hz": 50.0})
    sink: dict[str, Any] = field(default_factory=dict)
    credentials: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """Its `agent.toml`, written anew."""
        settings = {
            "fleet": FLEET,
            "device": DEVICE,
            "profile": PROFILE,
            "registry": str(self.registry),
            "state_dir": "state",
            "telemetry_period_s": 0.5,
            "watch_s": 0.4,
            **self.settings,
        }
        broker = {"port": self.port, **self.credentials}
        tables = {"broker": broker, "source": self.source, "sink": self.sink, **self.tables}
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        path = self.folder / "agent.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def start(self) -> None:
        command = [str(Path(sys.executable).parent / "edgewright"), "agent", "run", "--verbose", "--config"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, str(self.config)], stderr=log)

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def device(tmp_path: Path, registry: Registry, broker: Broker) -> Iterator[Device]:
    folder = tmp_path / "device"
    folder.mkdir()
    one = Device(folder, registry.root, broker.port)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.kill()
