"""What the API tells of the device and its model: metadata, configuration, index and statistics.

Metadata is the Open Inference Protocol's; the model configuration, the repository index and the statistics are
those of Triton's extensions, as far as they mean something for one model that the fleet chooses.
"""

from __future__ import annotations

from typing import Any

from edgewright.artifact.manifest import ModelFormat, TensorSpec
from edgewright.version import __version__
from edgewright_agent.inference import Served
from edgewright_agent.serving.protocol import datatype_of

Document = dict[str, Any]
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
_PLATFORMS: dict[ModelFormat, str] = {"onnx": "onnxruntime_onnx", "tflite": "litert_tflite"}


def server_metadata() -> Document:
    """`GET /v2`."""
    return {"name": "edgewright-agent", "version": __version__, "extensions": EXTENSIONS}


def model_metadata(served: Served) -> Document:
    """`GET /v2/models/NAME`: the artifact's own tensors; quantisation and source shape as parameters."""
    release = served.content.release
    return {
        "name": release.name,
        "versions": [release.version],
        "platform": _platform(served),
        "inputs": [_tensor(spec) for spec in served.model.inputs],
        "outputs": [_tensor(spec) for spec in served.model.outputs],
        "parameters": {"digest": release.digest, "runtime": served.model.runtime},
    }


def model_configuration(served: Served) -> Document:
    """`GET /v2/models/NAME/config`, as Triton's tools read it; the batch, if any, is an axis of the shape."""
    return {
        "name": served.content.release.name,
        "platform": _platform(served),
        "max_batch_size": 0,
        "input": [_configured(spec) for spec in served.model.inputs],
        "output": [_configured(spec) for spec in served.model.outputs],
    }


def repository_index(served: Served | None) -> list[Document]:
    """`POST /v2/repository/index`: the one model that the device serves."""
    if served is None:
        return []
    release = served.content.release
    return [{"name": release.name, "version": release.version, "state": "READY", "reason": ""}]


def statistics(served: Served) -> Document:
    """`GET /v2/models/NAME/stats`: since the model was loaded, in nanoseconds; the agent's own loop included."""
    release, errors = served.content.release, served.tally.errors
    count, spent = served.spent.inferences, served.spent.durations
    total = spent.preprocessing + spent.queue + spent.run + spent.postprocessing
    parts = {
        "success": (count, total),
        "fail": (errors, 0.0),
        "queue": (count, spent.queue),
        "compute_input": (count, spent.preprocessing),
        "compute_infer": (count, spent.run),
        "compute_output": (count, spent.postprocessing),
    }
    model = {
        "name": release.name,
        "version": release.version,
        "inference_count": count,
        "execution_count": count,
        "inference_stats": {
            part: {"count": times, "ns": round(seconds * 1e9)} for part, (times, seconds) in parts.items()
        },
    }
    return {"model_stats": [model]}


def _platform(served: Served) -> str:
    manifest = served.model.manifest
    assert manifest is not None  # what is served comes from a slot, and so from an artifact
    return _PLATFORMS[manifest.format]


def _tensor(spec: TensorSpec) -> Document:
    parameters: Document = {}
    if spec.quantisation is not None:
        parameters |= {"scale": spec.quantisation.scale, "zero_point": spec.quantisation.zero_point}
    if spec.permutation is not None:
        parameters["source_shape"] = spec.source_shape
    document = {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": spec.shape}
    return document | ({"parameters": parameters} if parameters else {})


def _configured(spec: TensorSpec) -> Document:
    return {"name": spec.name, "data_type": f"TYPE_{datatype_of(spec.dtype)}", "dims": spec.shape}
