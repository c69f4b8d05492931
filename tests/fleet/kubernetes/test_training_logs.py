"""What the pods of a training run print, through a real API server, from a node whose kubelet is our own."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.errors import ClusterError
from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.kubernetes.backend import KubernetesBackend
from edgewright_fleet.retraining.kubernetes.settings import KubernetesSettings
from fleet.kubernetes.played_node import node_with_logs
from fleet.kubernetes.real_cluster import RealCluster, until
from fleet.kubernetes.submitted_runs import end, pods, submitter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SETTINGS = KubernetesSettings(
    image="edgewright:test", claim="edgewright-registry", cpu="10m", memory="16Mi", shared_memory="8Mi",
    node_selector={"edgewright.dev/logs": "here"},
)  # fmt: skip
FIGURES = {"restarts": 1, "checkpoint_step": 40, "step": 42, "steps": 100, "loss": 0.5, "left_s": 9.0}
PROGRESS = f"edgewright-progress {json.dumps(FIGURES)}"


@pytest.fixture
def log_folder(berlin: RealCluster, tmp_path: Path) -> Iterator[Path]:
    """The folder of the logs that a node of the cluster serves; it is labelled `edgewright.dev/logs: here`."""
    with node_with_logs(berlin, "logs", tmp_path) as logs:
        yield logs


def begin(
    cluster: RealCluster, backend: KubernetesBackend, run: TrainingJob, logs: Path, printed: str
) -> str:
    """Submit a run, and have its pod run and print."""
    backend.submit(run)
    [pod] = until(lambda: [pod for pod in pods(cluster, run) if pod["spec"].get("nodeName")])
    name = str(pod["metadata"]["name"])
    (logs / name).write_text(printed)
    state = {
        "state": {"running": {}},
        "name": "node",
        "image": "i",
        "imageID": "i",
        "ready": True,
        "restartCount": 0,
    }
    said = {"status": {"phase": "Running", "containerStatuses": [state]}}
    cluster.api.patch(f"{cluster.api.named('pods', name)}/status", said)
    return name


def test_lines_of_ranks_come_as_they_are_printed_and_progress_is_read_from_them(
    berlin: RealCluster, log_folder: Path
) -> None:
    backend = submitter(berlin, SETTINGS)
    run = TrainingJob(name="printing", function="shapes:train", folder=Path("/edgewright/runs/printing"))
    name = begin(berlin, backend, run, log_folder, "[0] begins\nmeets nobody\n[1] größer\n")
    assert list(backend.logs(run)) == ["[0] begins", "[-] meets nobody", "[1] größer"]
    status = backend.status(run)
    assert (status.state, status.step, status.loss) == ("running", None, None)

    arrived: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = threading.Thread(
        target=lambda: [arrived.put(line) for line in backend.logs(run, follow=True)], daemon=True
    )
    reader.start()
    assert [arrived.get(timeout=60) for _ in range(3)][-1] == "[1] größer"
    with (log_folder / name).open("a") as log:
        log.write(f"{PROGRESS}\n[0] half of a li")
        log.flush()
        status = until(lambda: (s := backend.status(run)).step == 42 and s)
        assert (status.steps, status.loss, status.left_s, status.checkpoint_step) == (100, 0.5, 9.0, 40)
        assert status.restarts == 1
        log.write("ne\n")
    assert arrived.get(timeout=60) == "[0] half of a line"

    (log_folder / f"{name}.ended").touch()
    [pod] = pods(berlin, run)
    end(berlin, pod, 0)
    reader.join(60)
    assert not reader.is_alive() and arrived.empty()
    status = backend.status(run)
    assert (status.state, status.step) == ("succeeded", 42)
    backend.clean_up(run)
    until(lambda: not pods(berlin, run))


def test_a_run_that_is_cancelled_keeps_how_far_it_had_come(berlin: RealCluster, log_folder: Path) -> None:
    backend = submitter(berlin, SETTINGS)
    run = TrainingJob(name="far", function="shapes:train", folder=Path("/edgewright/runs/far"))
    with pytest.raises(ClusterError, match="run far: was never submitted"):
        list(backend.logs(run))
    name = begin(berlin, backend, run, log_folder, f"{PROGRESS}\n{PROGRESS[:50]}")
    assert backend.status(run).step == 42
    backend.cancel(run)
    berlin.api.delete(berlin.api.named("pods", name), gracePeriodSeconds="0")  # no kubelet ends it
    status = until(lambda: (s := backend.status(run)).state == "cancelled" and s)
    assert (status.step, status.checkpoint_step, status.why) == (42, 40, "on request")
    backend.clean_up(run)
