"""`Model`: a loaded model, the same to call whatever format and runtime is underneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import ArtifactManifest, ModelFormat, TensorSpec
from edgewright.artifact.release import Artifact, find_artifact
from edgewright.errors import ArtifactError, DataError
from edgewright.runtime.quantised_io import ordered_inputs, raw_input, real_output
from edgewright.runtime.session import Session, open_session

if TYPE_CHECKING:
    from edgewright.latency_benchmark import Benchmark

Array = NDArray[Any]


class Model:
    """A loaded model. Any thread may call it.

    `manifest` and `artifact` are None for a bare model file, whose tensors may be described by `inputs` and
    `outputs` where more is known of them than the file says.
    """

    def __init__(
        self,
        session: Session,
        artifact: Artifact | None = None,
        *,
        threads: int = 1,
        inputs: tuple[TensorSpec, ...] | None = None,
        outputs: tuple[TensorSpec, ...] | None = None,
    ) -> None:
        self._session = session
        self.artifact = artifact
        self.threads = threads
        known = artifact.manifest if artifact else session
        self.inputs: tuple[TensorSpec, ...] = inputs or known.inputs
        self.outputs: tuple[TensorSpec, ...] = outputs or known.outputs
        # A manifest may list tensors in another order than the file does.
        in_order = {spec.runtime_name: i for i, spec in enumerate(self.inputs)}
        out_order = {spec.runtime_name: i for i, spec in enumerate(session.outputs)}
        try:
            self._feed_order = [in_order[spec.runtime_name] for spec in session.inputs]
            self._fetch_order = [out_order[spec.runtime_name] for spec in self.outputs]
        except KeyError as missing:
            raise ArtifactError(
                f"the manifest and the model file disagree about the tensor {missing}"
            ) from None

    @property
    def manifest(self) -> ArtifactManifest | None:
        return self.artifact.manifest if self.artifact else None

    @property
    def runtime(self) -> str:
        """The runtime that executes it, with its version."""
        return self._session.runtime

    def run(self, inputs: Mapping[str, Any] | Any, *, raw: bool = False) -> dict[str, Array]:
        """One inference on a dict of arrays by input name, or on one array where there is one input.

        A `Path` or the bytes of an image file become that array as the manifest's preprocessing says.

        Arrays are float in the source model's shape, and so are the results, by output name; `raw=True`
        takes and gives the artifact's own dtypes and axis order. Raises `DataError`.
        """
        return self.finish(self.execute(self.prepare(inputs, raw=raw)), raw=raw)

    def prepare(self, inputs: Mapping[str, Any] | Any, *, raw: bool = False) -> list[Array]:
        """The first part of `run`: checked, in the artifact's axis order, quantised. From any thread."""
        if isinstance(inputs, (Path, bytes)):
            inputs = self._preprocessed(inputs)
        values = zip(ordered_inputs(inputs, self.inputs), self.inputs, strict=True)
        convert = _checked_raw if raw else raw_input
        return [convert(value, spec) for value, spec in values]

    def _preprocessed(self, picture: Path | bytes) -> Array:
        from edgewright.preprocessing import preprocess

        how = self.manifest.preprocessing if self.manifest else None
        if how is None:
            raise DataError(
                "the model's manifest describes no preprocessing of images",
                remedy="give the array that it takes, or convert it from a folder of images",
            )
        return preprocess(picture, how)[np.newaxis]

    def execute(self, prepared: Sequence[Array]) -> list[Array]:
        """The second part: the runtime alone. From one thread at a time."""
        results = self._session.run([prepared[i] for i in self._feed_order])
        return [results[i] for i in self._fetch_order]

    def finish(self, results: Sequence[Array], *, raw: bool = False) -> dict[str, Array]:
        """The last part: by output name, and float in the source model's axis order. From any thread."""
        outputs = zip(results, self.outputs, strict=True)
        return {spec.name: result if raw else real_output(result, spec) for result, spec in outputs}

    def run_raw(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """`run(inputs, raw=True)`: the form that golden vectors take."""
        return self.run(inputs, raw=True)

    def benchmark(self, *, seconds: float = 2.0) -> Benchmark:
        """Latency of the runtime alone, measured on this host for about `seconds`."""
        from edgewright.latency_benchmark import benchmark

        return benchmark(self, seconds=seconds)


def open_model(
    target: str | Path,
    profile: str | None = None,
    *,
    format: ModelFormat | None = None,  # noqa: A002 - the word that the command and the manifest use
    threads: int = 1,
) -> Model:
    """Load a `.onnx` or `.tflite` file, an artifact folder, or a reference `oci:FOLDER:NAME:VERSION`.

    `profile` and `format` choose among the artifacts of a release. Every digest is checked before a byte is
    parsed. Raises `ArtifactError`, `RuntimeUnavailableError`.
    """
    path = Path(target)
    suffix = path.suffix.lower()
    if not str(target).startswith("oci:"):
        if not path.exists():
            raise ArtifactError("does not exist", where=str(target))
        if path.is_file():
            if suffix not in (".onnx", ".tflite"):
                raise ArtifactError("is not a .onnx or .tflite file", where=str(target))
            file_format: ModelFormat = "onnx" if suffix == ".onnx" else "tflite"
            return Model(open_session(path, file_format, threads=threads), threads=threads)
    return load_artifact(find_artifact(target, profile, format), threads=threads)


def load_artifact(artifact: Artifact, *, threads: int = 1) -> Model:
    """Load an artifact that is already open. Raises `ArtifactError`, `RuntimeUnavailableError`."""
    manifest = artifact.manifest
    session = open_session(artifact.model_path, manifest.format, threads=threads, allowed=manifest.runtimes)
    return Model(session, artifact, threads=threads)


def _checked_raw(value: Any, spec: TensorSpec) -> Array:
    array = np.asarray(value)
    if array.dtype != np.dtype(spec.dtype) or array.shape != spec.shape:
        given = f"{array.dtype}{list(array.shape)}"
        raise DataError(f"raw input '{spec.name}' is {given}; it takes {spec.dtype}{list(spec.shape)}")
    return array
