"""The one evaluator of all artifacts: executes them on the runtime they are for and times them.

A child process in the environment `runtimes`: `python -m benchmarks.converters.execution outputs EVALUATION.npz
SCORES.npy MODEL`, or `… latency ROUNDS SECONDS TIMES.json MODEL…`, where a model is `RUNTIME:PATH`. A model beside
which a manifest lies is ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import ArtifactManifest, Dtype, ModelFormat, TensorSpec
from edgewright.contract import from_json
from edgewright.latency_benchmark import benchmark_interleaved
from edgewright.runtime.model import Model
from edgewright.runtime.session import Session, open_session

CHANNELS_LAST = (0, 2, 3, 1)


class OpenVinoSession:
    """See `edgewright.runtime.session.Session`. Everything that is not integer is computed in float32."""

    def __init__(self, path: Path) -> None:
        import openvino

        # Where a processor has bfloat16, OpenVINO would take it for float; most edge devices have not.
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        self.runtime = f"openvino {openvino.__version__.split('-')[0]}"
        self._request = compiled.create_infer_request()
        self.inputs = tuple(_openvino_spec(f"input_{i}", port) for i, port in enumerate(compiled.inputs))
        self.outputs = tuple(_openvino_spec(f"output_{i}", port) for i, port in enumerate(compiled.outputs))
        # Filled in place: the binding's own handling of dictionaries costs as much as a small model.
        self._buffers = [self._request.get_input_tensor(i).data for i in range(len(self.inputs))]

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        for buffer, array in zip(self._buffers, inputs, strict=True):
            buffer[...] = array
        self._request.infer()
        return [self._request.get_output_tensor(i).data for i in range(len(self.outputs))]


def _openvino_spec(name: str, port: Any) -> TensorSpec:
    dtype = cast("Dtype", np.dtype(port.get_element_type().to_dtype()).name)
    return TensorSpec(name=name, runtime_name=name, shape=tuple(port.get_shape()), dtype=dtype)


def open_model(target: str) -> Model:
    """A model file of any tool on one thread, called with the source model's float arrays."""
    runtime, _, name = target.partition(":")
    path = Path(name)
    session: Session
    if runtime == "openvino":
        session = OpenVinoSession(path)
    else:
        session = open_session(path, cast("ModelFormat", runtime), threads=1)
    manifest_path = Path(f"{path}.json")
    if manifest_path.exists():
        manifest = from_json(ArtifactManifest, manifest_path.read_bytes(), where=str(manifest_path))
        return Model(session, inputs=manifest.inputs, outputs=manifest.outputs)
    if runtime != "tflite":
        return Model(session)
    # The float TFLite export that its peers start from takes images channels last.
    inputs = tuple(spec.model_copy(update={"permutation": CHANNELS_LAST}) for spec in session.inputs)
    return Model(session, inputs=inputs)


def outputs(evaluation: Path, scores: Path, target: str) -> None:
    """Write the float scores of every evaluation sample."""
    model = open_model(target)
    with np.load(evaluation) as arrays:
        x = arrays["x"]
    rows = []
    for index in range(len(x)):
        (result,) = model.run(x[index : index + 1]).values()
        rows.append(np.array(result, np.float32).reshape(1, -1))
    np.save(scores, np.concatenate(rows))


def latency(rounds: int, seconds: float, times: Path, targets: Sequence[str]) -> None:
    """Write the median seconds of each model in each round, all models in turns of a few inferences each.

    Each round opens the models anew, in another order: where a session's memory happens to lie, and whose turn is
    before, make differences of some percent that would otherwise look like the model's own.
    """
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        order = [targets[i] for i in rng.permutation(len(targets))]
        models = [open_model(target) for target in order]
        measured = benchmark_interleaved(models, seconds=seconds)
        for target, model, benchmark in zip(order, models, measured, strict=True):
            new = {"runtime": model.runtime, "takes": model.inputs[0].dtype, "seconds": []}
            found.setdefault(target, new)["seconds"].append(benchmark.p50_s)
    times.write_text(json.dumps(found))


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "outputs":
        evaluation, scores, target = arguments
        outputs(Path(evaluation), Path(scores), target)
    else:
        rounds, seconds, times, *targets = arguments
        latency(int(rounds), float(seconds), Path(times), targets)


if __name__ == "__main__":
    main()
