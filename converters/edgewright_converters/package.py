"""From verified and judged models to manifests, and to a release in an OCI layout, all or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgewright.artifact.golden import golden_to_bytes
from edgewright.artifact.layout import Layout, digest_of, refuse_strange
from edgewright.artifact.manifest import (
    ArtifactManifest,
    Classification,
    GateReport,
    GoldenPolicy,
    LatencyFigure,
    ModelFormat,
    Precision,
    Provenance,
)
from edgewright.artifact.release import Release, publish, put_artifact
from edgewright.durable_file import check_writable
from edgewright.runtime.session import runtimes_for
from edgewright_converters.calibration import SampleSet
from edgewright_converters.verify import VerifiedModel

MAX_LSB: dict[ModelFormat, int] = {"onnx": 0, "tflite": 1}
"""How far an integer output may be off. Measured: ONNX Runtime's INT8 kernels agree bit for bit between x86 and
Arm, LiteRT's within XNNPACK; without XNNPACK LiteRT differs by one unit in 1–2 % of the values."""
FLOAT_TOLERANCE = 1e-3
"""For outputs left in float: their last bits differ between processors."""
_WIDER_TOLERANCE: dict[Precision, float] = {"float16": 1e-2, "int8-dynamic": 2e-2}
"""float16 kernels round where casts around float32 ones do not. The ranges of dynamic INT8 follow from those last
bits, so that an activation may come out a whole step off."""
_TOOLS = ("edgewright", "torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")


@dataclass(frozen=True)
class Packable:
    """One verified model for one profile, with the gate's report and the latency predicted there."""

    profile: str
    verified: VerifiedModel
    gate: GateReport
    predicted: tuple[LatencyFigure, ...]
    macs: int | None


def check_output(output: Path) -> None:
    """Raise what `package` would for the folder, before the work that ends in it; leaves nothing behind.

    Raises `StorageError`, and `ArtifactError` for a registry that is damaged.
    """
    refuse_strange(output)
    if (output / "oci-layout").is_file():
        Layout.open(output).names()
    check_writable(output / "index.json")


def package(
    packables: Sequence[Packable],
    *,
    output: Path | None,
    name: str,
    release_version: str,
    source: str,
    calibration: SampleSet | None,
    training: SampleSet | None,
    described: SampleSet,
    classification: str | None,
) -> tuple[Release | None, list[ArtifactManifest]]:
    """Describe the artifacts, and unless `output` is None write them and name the release over them.

    `training` is what static INT8 was fine-tuned on. The release appears in one step at the end; after an error
    nothing that was added is left. Raises `StorageError`.
    """
    goldens = [golden_to_bytes(packable.verified.golden) for packable in packables]
    manifests = [
        _manifest(
            packable, golden, name, release_version, source, calibration, training, described, classification
        )
        for packable, golden in zip(packables, goldens, strict=True)
    ]
    if output is None:
        return None, manifests
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        layout = Layout.create(output)
        with layout.undone_on_error():
            descriptors = [
                put_artifact(layout, manifest, packable.verified.model.data, golden)
                for manifest, packable, golden in zip(manifests, packables, goldens, strict=True)
            ]
            return publish(layout, name, release_version, descriptors), manifests
    except BaseException:
        if made:
            Layout(output).remove()
        for parent in made[1:]:
            with contextlib.suppress(OSError):  # somebody else has put something there
                parent.rmdir()
        raise


def _manifest(
    packable: Packable,
    golden: bytes,
    name: str,
    release_version: str,
    source: str,
    calibration: SampleSet | None,
    training: SampleSet | None,
    described: SampleSet,
    classification: str | None,
) -> ArtifactManifest:
    verified, model = packable.verified, packable.verified.model
    taught = training if model.precision == "int8" else None
    return ArtifactManifest(
        name=name,
        version=release_version,
        profile=packable.profile,
        format=model.format,
        precision=model.precision,
        runtimes=runtimes_for(model.format, model.precision),
        model_digest=digest_of(model.data),
        model_bytes=len(model.data),
        float_bytes=verified.float_bytes,
        inputs=model.inputs,
        outputs=model.outputs,
        preprocessing=described.preprocessing,
        postprocessing=Classification(output=classification) if classification else None,
        labels=described.classes,
        golden=GoldenPolicy(
            digest=digest_of(golden),
            vectors=verified.golden.count,
            runtime=verified.runtime,
            max_lsb=MAX_LSB[model.format],
            relative_tolerance=_WIDER_TOLERANCE.get(model.precision, FLOAT_TOLERANCE),
        ),
        accuracy=verified.accuracy,
        gate=packable.gate,
        drift_reference=verified.drift_reference,
        latencies=(*verified.latencies, *packable.predicted),
        float_operators=tuple(f"{left.type} {left.name}" for left in packable.gate.float_operators),
        macs=packable.macs,
        provenance=Provenance(
            source=source,
            calibration_samples=calibration.count if calibration else 0,
            calibration_digest=calibration.digest() if calibration else None,
            training_samples=taught.count if taught else 0,
            training_digest=taught.digest() if taught else None,
            tools=_tool_versions(),
        ),
    )


def _tool_versions() -> dict[str, str]:
    found = {}
    for tool in _TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found
