"""`FollowingModel`: in an application on a device, the version of a model that the agent serves, call by call.

A call that comes `CHECK_S` after the last check compares the stamp of the agent's pointer with the one it knows.
Where it differs, a thread reads the pointer and loads the new version while calls go on with the old one; then
the two are swapped between calls. What cannot be loaded is logged once, and the old version serves on.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.active_slot import NO_STATE, POINTER, SlotContent, open_slot, read_pointer
from edgewright.artifact.manifest import ArtifactManifest, ModelFormat, TensorSpec
from edgewright.artifact.release import Artifact
from edgewright.errors import ArtifactError, EdgewrightError
from edgewright.runtime.model import Array, Model, load_artifact, open_model

if TYPE_CHECKING:
    from edgewright.latency_benchmark import Benchmark

log = logging.getLogger("edgewright")
STATE_DIR_VARIABLE = "EDGEWRIGHT_STATE_DIR"
STATE_DIR = Path("/var/lib/edgewright/state")
CHECK_S = 0.2
"""Between two looks at the pointer, which take 2 µs each: a switch is followed as soon as a person could see."""
RETRY_S = 10.0
"""Between two attempts to load a version that could not be: it may have been for want of memory."""
ATTEMPTS = 5
"""To load what the pointer names while it names something else each time."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

Stamp = tuple[int, int, int] | None
"""Differs from one pointer to the next: each is a file of its own, renamed into place. None: there is none."""


def load(
    target: str | Path,
    profile: str | None = None,
    *,
    format: ModelFormat | None = None,  # noqa: A002 - the word that the command and the manifest use
    threads: int = 1,
    state_dir: str | Path | None = None,
) -> Model | FollowingModel:
    """Load a `.onnx` or `.tflite` file, an artifact folder, a reference, or what the agent serves by a name.

    A reference is `oci:FOLDER:NAME:VERSION`; `profile` and `format` choose among the artifacts of a release. A
    model's name, where no file or folder is called so, follows the agent of this device, whose state is found
    in `state_dir`, in `EDGEWRIGHT_STATE_DIR` or in `/var/lib/edgewright/state`. Every digest is checked before
    a byte is parsed. Raises `ArtifactError`, `StorageError`, `RuntimeUnavailableError`.
    """
    name = str(target)
    chosen = profile is not None or format is not None
    if state_dir is not None or not (chosen or name.endswith((".onnx", ".tflite")) or Path(target).exists()):
        if _NAME.fullmatch(name):
            folder = state_dir or os.environ.get(STATE_DIR_VARIABLE) or STATE_DIR
            return FollowingModel(name, Path(folder), threads=threads)
        if state_dir is not None:
            raise ArtifactError(
                f"'{name}' is not a model's name, which is what an agent's state is asked for"
            )
    return open_model(target, profile, format=format, threads=threads)


class FollowingModel:
    """The active version of the model `name`, with the face of a `Model`. Any thread may call it.

    A process that forks loads it in the child: a runtime does not survive a fork.
    """

    def __init__(self, name: str, state_dir: Path, *, threads: int = 1) -> None:
        """Load what the agent serves now. Raises the error family where that is nothing or another model.

        Where the active version is corrupt, the one before is loaded, as the agent itself does at a start.
        """
        self.name = name
        self.threads = threads
        self._state_dir = state_dir
        self._pointer = str(state_dir / POINTER)
        self._looking = threading.Lock()
        self._loader: threading.Thread | None = None
        self._complaint: str | None = None
        self._retry = 0.0
        self._model = self._first()
        self._due = time.monotonic() + CHECK_S

    @property
    def current(self) -> Model:
        """The version that serves now; hold it to ask for the manifest of the very model that ran."""
        if time.monotonic() >= self._due:
            self._look()
        return self._model

    @property
    def artifact(self) -> Artifact | None:
        return self.current.artifact

    @property
    def manifest(self) -> ArtifactManifest | None:
        return self.current.manifest

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.current.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.current.outputs

    @property
    def runtime(self) -> str:
        """The runtime that executes it, with its version."""
        return self.current.runtime

    def run(self, inputs: Mapping[str, Any] | Any, *, raw: bool = False) -> dict[str, Array]:
        """One inference by the active version, as `Model.run`. Raises `DataError`."""
        return self.current.run(inputs, raw=raw)

    def run_raw(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """`run(inputs, raw=True)`."""
        return self.current.run(inputs, raw=True)

    def benchmark(self, *, seconds: float = 2.0) -> Benchmark:
        """Latency of the version that is active when it begins; see `Model.benchmark`."""
        return self.current.benchmark(seconds=seconds)

    def _look(self) -> None:
        """Start a thread that follows where the pointer has changed, or where an attempt is due again."""
        if not self._looking.acquire(blocking=False):
            return  # another caller does
        try:
            now = time.monotonic()
            self._due = now + CHECK_S
            if self._loader is not None and self._loader.is_alive():
                return
            if self._stamp_now() == self._stamp and (self._complaint is None or now < self._retry):
                return
            # Not a daemon: the end of the process waits for it, as one within a runtime would crash there.
            self._loader = threading.Thread(target=self._follow, name=f"following {self.name}", daemon=False)
            try:
                self._loader.start()
            except RuntimeError:  # no threads left, or the process ends: no reason to fail a call
                self._loader = None
        finally:
            self._looking.release()

    def _follow(self) -> None:
        try:
            self._model = self._newest(self._model)
            self._complaint = None
        except Exception as error:  # noqa: BLE001 - whatever a new version raises, the old one serves on
            self._complain(self._model, error)

    def _first(self) -> Model:
        try:
            return self._newest(None)
        except EdgewrightError as error:
            state = read_pointer(self._state_dir)
            if state.previous is None or not self._is_ours(state.active, state.previous):
                raise
            model = self._opened(state.previous)
            self._complain(model, error)
            return model

    def _newest(self, serving: Model | None) -> Model:
        """What the pointer names, loaded unless it is what serves.

        The agent writes to a slot only while the pointer names the other one, and each blob lies under the name
        of its digest: what is read beside a write is missing, never another model. So a failure counts when the
        pointer is the same before and after.
        """
        for attempt in range(ATTEMPTS):
            self._stamp = self._stamp_now()
            try:
                return self._active(serving)
            except (EdgewrightError, OSError):
                if self._stamp_now() == self._stamp or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError

    def _active(self, serving: Model | None) -> Model:
        content = read_pointer(self._state_dir).active
        if content is None:
            raise ArtifactError(
                "the agent has no model here yet", where=str(self._state_dir), remedy=NO_STATE
            )
        if not self._is_ours(content):
            problem = f"the agent serves '{content.release.name}', not '{self.name}'"
            raise ArtifactError(problem, where=str(self._state_dir))
        if (
            serving is not None
            and serving.artifact is not None
            and serving.artifact.digest == content.artifact
        ):
            return serving  # the pointer says something new about the same model
        return self._opened(content)

    def _is_ours(self, *contents: SlotContent | None) -> bool:
        return all(content is not None and content.release.name == self.name for content in contents)

    def _opened(self, content: SlotContent) -> Model:
        return load_artifact(open_slot(self._state_dir, content), threads=self.threads)

    def _complain(self, serving: Model, error: Exception) -> None:
        if self._complaint != str(error):
            version = serving.manifest.version if serving.manifest else ""
            log.warning(
                "%s %s serves, as what the agent serves cannot be loaded: %s", self.name, version, error
            )
        self._complaint, self._retry = str(error), time.monotonic() + RETRY_S

    def _stamp_now(self) -> Stamp:
        try:
            found = os.stat(self._pointer)  # noqa: PTH116 - a third of the time of a Path's
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
