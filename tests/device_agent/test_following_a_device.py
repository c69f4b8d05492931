"""An application follows a real agent process through its updates."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import edgewright as ew

pytestmark = pytest.mark.slow

X = np.array([[3, 1, 4, 1]], np.uint8)


def test_no_call_is_lost_or_torn_while_the_agent_takes_one_release_after_the_other(
    device: Any, fleet: Any, registry: Any
) -> None:
    device.settings |= {"watch_s": 0.1, "telemetry_period_s": 5.0}
    versions = [f"{i}.0.0" for i in range(1, 7)]
    releases = [registry.release(version) for version in versions]
    answers = {}
    for version in versions:
        alone = ew.load(f"oci:{registry.root}:sorter:{version}")
        answers[alone.run(X, raw=True)["scores"].tobytes()] = version
    assert len(answers) == len(versions)
    device.start()
    fleet.desire(releases[0], "first")
    fleet.wait_for_phase("committed", "first")

    model = ew.load("sorter", state_dir=device.folder / "state")
    stop, problems, heard = threading.Event(), list[BaseException](), [list[str]() for _ in range(3)]

    def call(mine: list[str]) -> None:
        try:
            while not stop.is_set():
                version = answers[model.run(X, raw=True)["scores"].tobytes()]
                if not mine or mine[-1] != version:
                    mine.append(version)
                time.sleep(0.002)
        except BaseException as error:  # noqa: BLE001 - any of them is a lost or a torn call
            problems.append(error)

    threads = [threading.Thread(target=call, args=(mine,)) for mine in heard]
    for thread in threads:
        thread.start()
    try:
        for release in releases[1:]:
            fleet.desire(release, release.version)
            fleet.wait_for_phase("committed", release.version)
        # One that fails its proof is never seen, and a kill changes nothing for the application.
        fleet.desire(registry.release("7.0.0", wrong_golden=True), "bad")
        fleet.wait_for_phase("failed", "bad")
        device.kill()
        time.sleep(0.5)
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert problems == []
    assert heard == [versions] * 3
