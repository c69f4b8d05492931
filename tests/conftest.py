"""Fixtures that several folders use: tiny real artifacts, a registry, a real broker."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper

from edgewright.artifact.golden import GoldenVectors, golden_to_bytes
from edgewright.artifact.layout import Layout, digest_of
from edgewright.artifact.manifest import (
    AccuracyReport,
    ArtifactManifest,
    GoldenPolicy,
    Provenance,
    Quantisation,
    TensorSpec,
)
from edgewright.artifact.release import Release, publish, put_artifact
from edgewright.mqtt import BrokerSettings

# How long an example takes says more of the machine than of the code; benchmarks time it. A verdict on a change
# must not depend on luck: the same examples each time, and `make explore` looks for new ones.
settings.register_profile(
    "repeatable", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile(
    "explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=1000
)
settings.load_profile("repeatable")

PROFILE = "x86-64-gateway"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, those of a file share a process, and all that need a cluster share one."""
    for item in items:
        folder = str(item.path.parent)
        item.add_marker(pytest.mark.xdist_group("kubernetes" if "kubernetes" in folder else str(item.path)))


def tiny_onnx(offset: int = 1) -> bytes:
    """A real integer model: y = x + offset on four unsigned bytes."""
    value = helper.make_tensor("offset", TensorProto.UINT8, [1, 4], [offset] * 4)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "offset"], ["y"], name="add")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 4])],
        [value],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tiny_manifest(model: bytes, golden: bytes, version: str = "1.0.0") -> ArtifactManifest:
    quantisation = Quantisation(scale=0.5, zero_point=10)
    return ArtifactManifest(
        name="tiny",
        version=version,
        profile=PROFILE,
        format="onnx",
        precision="int8",
        runtimes=("onnxruntime",),
        model_digest=digest_of(model),
        model_bytes=len(model),
        inputs=(
            TensorSpec(name="x", runtime_name="x", shape=(1, 4), dtype="uint8", quantisation=quantisation),
        ),
        outputs=(
            TensorSpec(name="y", runtime_name="y", shape=(1, 4), dtype="uint8", quantisation=quantisation),
        ),
        golden=GoldenPolicy(
            digest=digest_of(golden), vectors=2, runtime="onnxruntime", max_lsb=0, relative_tolerance=0.0
        ),
        accuracy=AccuracyReport(executed_by="onnxruntime", data="evaluation", samples=2, sqnr_db={"y": 40.0}),
        provenance=Provenance(source="tests", calibration_samples=0),
    )


def tiny_golden(offset: int = 1) -> bytes:
    x = np.arange(8, dtype=np.uint8).reshape(2, 1, 4)
    return golden_to_bytes(GoldenVectors({"x": x}, {"y": x + np.uint8(offset)}))


def put_tiny(layout: Layout, version: str, *, offset: int = 1, golden_offset: int | None = None) -> Release:
    """Publish `tiny:VERSION`; a golden offset of its own makes an artifact that does not compute what it says."""
    model = tiny_onnx(offset)
    golden = tiny_golden(offset if golden_offset is None else golden_offset)
    descriptor = put_artifact(layout, tiny_manifest(model, golden, version), model, golden)
    return publish(layout, "tiny", version, [descriptor])


@pytest.fixture
def registry(tmp_path: Path) -> Layout:
    """A registry that holds tiny:1.0.0."""
    layout = Layout.create(tmp_path / "registry")
    put_tiny(layout, "1.0.0")
    return layout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """Wait until something holds; whether it did in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


@contextmanager
def running_mosquitto(folder: Path, more: str = "", port: int | None = None) -> Iterator[BrokerSettings]:
    """A real mosquitto on loopback, on a free port as a rule, with lines of its own in its configuration."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    assert program is not None, "mosquitto is not installed: apt-get install mosquitto"
    port = port or free_port()
    config = folder / "mosquitto.conf"
    anonymous = "" if "allow_anonymous" in more else "allow_anonymous true\n"
    config.write_text(f"listener {port} 127.0.0.1\n{anonymous}{more}")
    process = subprocess.Popen(
        [program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def accepts() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        assert until(accepts), "mosquitto does not accept connections"
        yield BrokerSettings(port=port)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[BrokerSettings]:
    """One that retains nothing of another test."""
    with running_mosquitto(tmp_path) as settings:
        yield settings
