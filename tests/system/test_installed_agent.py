"""What pip puts on a device is enough to serve, and is there as wheels for Arm. Needs the package index."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.agent.install import FORBIDDEN, build, environment_with, packages_for_arm, serve_from

pytestmark = pytest.mark.slow


def test_an_agent_serves_from_nothing_but_its_own_packages(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    packages = {package.name for package in packages_for_arm(wheel, tmp_path / "arm")}
    assert {"onnxruntime", "ai-edge-litert", "paho-mqtt"} < packages
    assert not packages & FORBIDDEN
    found = serve_from(environment_with(wheel, tmp_path / "environment"), tmp_path / "device")
    assert found.status["release"] == "photos:1.0.0"
    assert found.status["inferences"] >= 1
    assert found.status["errors"] == 0
    health = {finding["check"]: finding["health"] for finding in found.doctor}
    assert health["runtime"] == health["slots"] == health["registry"] == "ok"
    assert health["broker"] == "failed"  # there is none
