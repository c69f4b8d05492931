"""A classifier of 224×224 photos, small enough that its own time hides nothing, in a device's slot.

Real ONNX, real digests, golden vectors computed with numpy, and a reference for drift, so that a device with it
does all that it does for a model of a converter's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgewright.artifact.golden import GoldenVectors, golden_to_bytes
from edgewright.artifact.layout import Layout, digest_of
from edgewright.artifact.manifest import (
    AccuracyReport,
    ArtifactManifest,
    Classification,
    DriftReference,
    GoldenPolicy,
    Provenance,
    TensorSpec,
)
from edgewright.artifact.release import Artifact, find_artifact, publish, put_artifact
from edgewright.telemetry.sketcher import Sketcher
from edgewright.twin import DesiredState, ReleaseReference
from edgewright_agent.slots import Slots

SHAPE, CLASSES = (1, 3, 224, 224), 16
NAME, VERSION, PROFILE = "photos", "1.0.0", "x86-64-gateway"
PATCH, VECTORS = 32, 4


def model_bytes(weights: np.ndarray) -> bytes:
    """The greatest sum of products over patches of 32 × 32 pixels, for each class: one integer convolution."""
    graph = helper.make_graph(
        [
            helper.make_node("ConvInteger", ["image", "w"], ["patches"], strides=[PATCH, PATCH]),
            helper.make_node("ReduceMax", ["patches"], ["scores"], axes=[2, 3], keepdims=0),
        ],
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, SHAPE)],
        [helper.make_tensor_value_info("scores", TensorProto.INT32, [1, CLASSES])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def install(folder: Path, configuration: str = "", *, device: str = "one") -> Artifact:
    """A device's folder with the model in a slot, and an `agent.toml` that ends in `configuration`."""
    random = np.random.default_rng(0)
    weights = random.integers(-50, 50, (CLASSES, 3, PATCH, PATCH), dtype=np.int8)
    images = random.integers(0, 256, (VECTORS, *SHAPE), dtype=np.uint8)
    side = SHAPE[2] // PATCH
    patches = images.reshape(VECTORS, 3, side, PATCH, side, PATCH).astype(np.int32)
    scores = np.einsum("vcyixj,kcij->vkyx", patches, weights.astype(np.int32)).max((2, 3))
    expected = scores.astype(np.int32)[:, None]
    data = model_bytes(weights)
    golden = golden_to_bytes(GoldenVectors({"image": images}, {"scores": expected}))
    inputs = (TensorSpec(name="image", runtime_name="image", shape=SHAPE, dtype="uint8"),)
    outputs = (TensorSpec(name="scores", runtime_name="scores", shape=(1, CLASSES), dtype="int32"),)
    sketcher = Sketcher(inputs, outputs, "scores")
    for image, answer in zip(images, expected, strict=True):
        sketcher.add(sketcher.glimpse([image], [answer]))
    sketch = sketcher.take()
    assert sketch is not None
    manifest = ArtifactManifest(
        name=NAME,
        version=VERSION,
        profile=PROFILE,
        format="onnx",
        precision="int8",
        runtimes=("onnxruntime",),
        model_digest=digest_of(data),
        model_bytes=len(data),
        inputs=inputs,
        outputs=outputs,
        postprocessing=Classification(output="scores"),
        golden=GoldenPolicy(
            digest=digest_of(golden), vectors=VECTORS, runtime="numpy", max_lsb=0, relative_tolerance=0
        ),
        accuracy=AccuracyReport(executed_by="numpy", data="evaluation", samples=VECTORS, sqnr_db={}),
        drift_reference=DriftReference(data="evaluation", sketch=sketch),
        provenance=Provenance(source="benchmarks.agent.photo_release", calibration_samples=0),
    )
    registry = Layout.create(folder / "registry")
    digest = publish(registry, NAME, VERSION, [put_artifact(registry, manifest, data, golden)]).digest
    release = ReleaseReference(name=NAME, version=VERSION, digest=digest)
    artifact = find_artifact(f"oci:{folder}/registry:{NAME}:{VERSION}")
    slots = Slots.open(folder / "state")
    slots.switch(slots.install(artifact, release), DesiredState(release=release, rollout="benchmark"))
    slots.commit()
    (folder / "agent.toml").write_text(
        f'fleet = "bench"\ndevice = "{device}"\nprofile = "{PROFILE}"\n'
        'registry = "registry"\nstate_dir = "state"\n' + configuration
    )
    return artifact
