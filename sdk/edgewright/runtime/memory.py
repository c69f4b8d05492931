"""`PeakMemory`: what an artifact needs in memory at run time, measured in a process of its own.

The kernel's own high-water mark of that process is read after the runtime is imported and again after the model
has run: the difference is the model's. (getrusage's figure would count the process that started it as well.)
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgewright.errors import ArtifactError

RUNS = 3
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class PeakMemory:
    """Bytes of resident memory at their highest."""

    runtime_bytes: int
    """Python, numpy and the runtime, before a model is there."""
    peak_bytes: int
    """The same process after loading the model and running it."""

    @property
    def model_bytes(self) -> int:
        return self.peak_bytes - self.runtime_bytes


def measure_peak_memory(model: Path, *, threads: int = 1, timeout_s: float = TIMEOUT_S) -> PeakMemory | None:
    """Load and run a model file in a new process. None on a system that does not tell (other than Linux).

    Raises `ArtifactError` where the process does not finish.
    """
    if not Path("/proc/self/status").is_file():
        return None
    command = [sys.executable, "-m", "edgewright.runtime.memory", str(model), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ArtifactError(f"did not run within {timeout_s:g} s", where=str(model)) from None
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1][:200]
        raise ArtifactError(f"its process ended with {done.returncode} ({last})", where=str(model))
    # A runtime may write to standard output before; the answer is the last line.
    runtime_bytes, peak_bytes = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return PeakMemory(runtime_bytes, peak_bytes)


def own_memory(field: Literal["VmHWM", "VmData"] = "VmHWM") -> int:
    """A figure of this process in bytes (proc(5)): the most that was resident, or what counts for RLIMIT_DATA.

    0 on a system that does not tell.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    match = re.search(rf"^{field}:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def main() -> None:
    """Print [after importing the runtime, after running the model] for the file named."""
    from edgewright.latency_benchmark import noise
    from edgewright.runtime.model import open_model
    from edgewright.runtime.session import import_runtime

    path, threads = Path(sys.argv[1]), int(sys.argv[2])
    import_runtime("onnx" if path.suffix == ".onnx" else "tflite")
    before = own_memory()
    model = open_model(path, threads=threads)
    feed = {spec.name: noise(spec) for spec in model.inputs}
    for _ in range(RUNS):
        model.run_raw(feed)
    sys.stdout.write(json.dumps([before, own_memory()]) + "\n")


if __name__ == "__main__":
    main()
