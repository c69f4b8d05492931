"""What following the agent's active version costs an application: a call, and memory over many switches.

python -m benchmarks.agent.following --switches 1000 oci:registry:net:1.0.0 oci:registry:net:1.1.0
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgewright.artifact.release import Artifact
from edgewright.runtime import following
from edgewright.runtime.following import FollowingModel
from edgewright.twin import DesiredState, ReleaseReference
from edgewright_agent.slots import Slots

WARM_SWITCHES = 100
"""Before memory is counted: the allocator's arenas and the runtime's tables reach their size."""


@dataclass(frozen=True)
class Growth:
    """Resident memory of a process that followed many switches."""

    switches: int
    before_bytes: int
    after_bytes: int
    wrong_outputs: int

    @property
    def grown_bytes(self) -> int:
        return self.after_bytes - self.before_bytes


def growth_over_switches(artifacts: Sequence[Artifact], switches: int) -> Growth:
    """Follow `switches` switches between the artifacts, each answered for, by the agent's own slots.

    Memory is read after `WARM_SWITCHES` more at the start. `artifacts` differ in what they compute.
    """
    feeds, expected = [], []
    for artifact in artifacts:
        golden = artifact.golden()
        feeds.append({name: array[0] for name, array in golden.inputs.items()})
        expected.append({name: array[0] for name, array in golden.outputs.items()})
    check_s, following.CHECK_S = following.CHECK_S, 0.0
    try:
        with tempfile.TemporaryDirectory() as folder:
            slots = Slots.open(Path(folder) / "state")
            _serve(slots, artifacts[0])
            model = FollowingModel(artifacts[0].manifest.name, slots.root)
            before = wrong = 0
            for i in range(1, WARM_SWITCHES + switches + 1):
                which = i % len(artifacts)
                _serve(slots, artifacts[which])
                while (now := model.current.artifact) is None or now.digest != artifacts[which].digest:
                    time.sleep(0.0002)
                outputs = model.run_raw(feeds[which])
                wrong += any(not np.array_equal(outputs[n], a) for n, a in expected[which].items())
                if i == WARM_SWITCHES:
                    before = _resident_bytes()
            return Growth(switches, before, _resident_bytes(), wrong)
    finally:
        following.CHECK_S = check_s


def call_overhead_ns(model: FollowingModel, feed: dict[str, np.ndarray], *, calls: int = 20_000) -> float:
    """What a call of a following model takes more than one of the model itself, in nanoseconds of processor time.

    The median of 21 interleaved pairs of runs.
    """
    bare = model.current
    differences = []
    for _ in range(21):
        times = []
        for run in (bare.run_raw, model.run_raw):
            begun = time.thread_time_ns()
            for _ in range(calls // 21):
                run(feed)
            times.append((time.thread_time_ns() - begun) / (calls // 21))
        differences.append(times[1] - times[0])
    return statistics.median(differences)


def look_ns(model: FollowingModel, *, calls: int = 200_000) -> tuple[float, float]:
    """Processor time of finding the current version: without a look at the pointer, and with one."""
    results = []
    for due in (float("inf"), 0.0):
        begun = time.thread_time_ns()
        for _ in range(calls):
            model._due = due
            model.current  # noqa: B018 - what it costs is the question
        results.append((time.thread_time_ns() - begun) / calls)
    model._due = 0.0
    return results[0], results[1]


def _serve(slots: Slots, artifact: Artifact) -> None:
    manifest = artifact.manifest
    release = ReleaseReference(name=manifest.name, version=manifest.version, digest=artifact.digest)
    content = slots.install(artifact, release)
    slots.switch(content, DesiredState(release=release, rollout="benchmark"))
    slots.commit()


def _resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def main() -> None:
    """Measure with versions that lie in a registry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("references", nargs="+", help="two or more versions, oci:FOLDER:NAME:VERSION")
    arguments = parser.parse_args()
    from edgewright.artifact.release import find_artifact

    artifacts = [find_artifact(reference) for reference in arguments.references]
    growth = growth_over_switches(artifacts, arguments.switches)
    with tempfile.TemporaryDirectory() as folder:
        slots = Slots.open(Path(folder) / "state")
        _serve(slots, artifacts[0])
        model = FollowingModel(artifacts[0].manifest.name, slots.root)
        golden = artifacts[0].golden()
        feed = {name: array[0] for name, array in golden.inputs.items()}
        overhead, (plain, look) = call_overhead_ns(model, feed), look_ns(model)
    figures = {"call_overhead_ns": overhead, "current_ns": plain, "current_with_look_ns": look}
    print(json.dumps({**asdict(growth), "grown_bytes": growth.grown_bytes, **figures}, indent=2))


if __name__ == "__main__":
    main()
