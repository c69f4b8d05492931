"""Releases of a toy model: real ONNX, real digests, real golden vectors, made in milliseconds.

Expected outputs are computed here with numpy, exactly, so that no runtime is loaded in this process.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright.artifact.golden import GoldenVectors, golden_to_bytes
from edgewright.artifact.layout import Layout, digest_of
from edgewright.artifact.manifest import (
    AccuracyReport,
    ArtifactManifest,
    GoldenPolicy,
    Provenance,
    TensorSpec,
)
from edgewright.artifact.release import publish, put_artifact
from edgewright.twin import ReleaseReference

PROFILE = "x86-64-gateway"
NAME = "toy"
WIDTH = 192
"""Of the square of weights: 37 kB, some ten pages, so that a disk can be full in the middle of it."""
VECTORS = 3


def toy_release(registry: Path, version: str, *, sound: bool = True) -> ReleaseReference:
    """Publish `toy:VERSION`, one integer matrix product; one that is not sound has golden outputs that are off."""
    random = np.random.default_rng(sum(version.encode()))
    weights = random.integers(-50, 50, (WIDTH, WIDTH), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, WIDTH])],
        [numpy_helper.from_array(weights, "w")],
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    data = model.SerializeToString()
    x = random.integers(0, 255, (VECTORS, 1, WIDTH), dtype=np.uint8)
    y = x.astype(np.int32) @ weights.astype(np.int32) + (0 if sound else 1)
    golden = golden_to_bytes(GoldenVectors({"x": x}, {"y": y.astype(np.int32)}))
    manifest = ArtifactManifest(
        name=NAME,
        version=version,
        profile=PROFILE,
        format="onnx",
        precision="int8",
        runtimes=("onnxruntime",),
        model_digest=digest_of(data),
        model_bytes=len(data),
        inputs=(TensorSpec(name="x", runtime_name="x", shape=(1, WIDTH), dtype="uint8"),),
        outputs=(TensorSpec(name="y", runtime_name="y", shape=(1, WIDTH), dtype="int32"),),
        golden=GoldenPolicy(
            digest=digest_of(golden), vectors=VECTORS, runtime="numpy", max_lsb=0, relative_tolerance=0
        ),
        accuracy=AccuracyReport(executed_by="numpy", data="evaluation", samples=VECTORS, sqnr_db={}),
        provenance=Provenance(source="benchmarks.agent.toy_releases", calibration_samples=0),
    )
    layout = Layout.create(registry)
    release = publish(layout, NAME, version, [put_artifact(layout, manifest, data, golden)])
    return ReleaseReference(name=NAME, version=version, digest=release.digest)
