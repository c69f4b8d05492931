"""Real classifiers of a few bytes that differ: scores are the four inputs plus an offset a class, all in uint8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from conftest import PROFILE
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
    Quantisation,
    TensorSpec,
    Verdict,
)
from edgewright.artifact.release import Release, publish, put_artifact
from edgewright_fleet.retraining.promotion.samples import LabelledSample

STEP = Quantisation(scale=0.5, zero_point=0)
LABELS = ("cat", "dog", "hen", "cow")


def classifier(offsets: Sequence[int]) -> bytes:
    value = helper.make_tensor("offset", TensorProto.UINT8, [1, 4], list(offsets))
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "offset"], ["scores"], name="add")],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.UINT8, [1, 4])],
        [value],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def gate_of(verdict: Verdict) -> GateReport:
    check = GateCheck(
        name="size", verdict=verdict, unit="B", how="measured on host", says="the model has 9 MB, 4 fit"
    )
    return GateReport(verdict=verdict, checks=(check,), conversion_s=1.0)


def put_classifier(
    layout: Layout,
    version: str,
    offsets: Sequence[int],
    *,
    profiles: Sequence[str] = (PROFILE,),
    gate: Verdict | None = "pass",
    classifies: bool = True,
    labels: tuple[str, ...] | None = LABELS,
) -> Release:
    """Publish `net:VERSION`, one artifact a profile."""
    model = classifier(offsets)
    x = np.arange(8, dtype=np.uint8).reshape(2, 1, 4)
    golden = golden_to_bytes(GoldenVectors({"x": x}, {"scores": x + np.array(offsets, np.uint8)}))
    descriptors = []
    for profile in profiles:
        manifest = ArtifactManifest(
            name="net",
            version=version,
            profile=profile,
            format="onnx",
            precision="int8",
            runtimes=("onnxruntime",),
            model_digest=digest_of(model),
            model_bytes=len(model),
            inputs=(TensorSpec(name="x", runtime_name="x", shape=(1, 4), dtype="uint8", quantisation=STEP),),
            outputs=(
                TensorSpec(
                    name="scores", runtime_name="scores", shape=(1, 4), dtype="uint8", quantisation=STEP
                ),
            ),
            postprocessing=Classification(output="scores") if classifies else None,
            labels=labels,
            golden=GoldenPolicy(
                digest=digest_of(golden),
                vectors=2,
                runtime="onnxruntime",
                max_lsb=0,
                relative_tolerance=0.0,
            ),
            accuracy=AccuracyReport(
                executed_by="onnxruntime", data="evaluation", samples=2, sqnr_db={"scores": 40.0}
            ),
            gate=gate_of(gate) if gate else None,
            provenance=Provenance(source="tests", calibration_samples=0),
        )
        descriptors.append(put_artifact(layout, manifest, model, golden))
    return publish(layout, "net", version, descriptors)


def registry_of(folder: Path, serving: Sequence[int], candidate: Sequence[int]) -> tuple[Release, Release]:
    """net:1.0.0, which serves, and net:1.1.0."""
    layout = Layout.create(folder)
    return put_classifier(layout, "1.0.0", serving), put_classifier(layout, "1.1.0", candidate)


def samples(
    count: int, offsets: Sequence[int], *, seed: int = 0, sites: Sequence[str] = ()
) -> list[LabelledSample]:
    """Samples whose class is that of a classifier with `offsets`, which so is always right on them."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        x = rng.integers(0, 100, (1, 4))
        groups = {"site": sites[number % len(sites)]} if sites else {}
        label = int((x + np.array(offsets)).argmax())
        made.append(LabelledSample({"x": (x * STEP.scale).astype(np.float32)}, label, groups))
    return made
