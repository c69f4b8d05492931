from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import put_tiny
from edgewright.artifact.layout import Layout


@pytest.mark.slow
def test_memory_does_not_grow_with_switches(tmp_path: Path) -> None:
    registry = Layout.create(tmp_path / "registry")
    for version, offset in (("1.0.0", 1), ("2.0.0", 2)):
        put_tiny(registry, version, offset=offset)
    references = [f"oci:{registry.root}:tiny:{version}" for version in ("1.0.0", "2.0.0")]
    # A process of its own, so that nothing else is counted.
    command = [sys.executable, "-m", "benchmarks.agent.following", "--switches", "200", *references]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    found = json.loads(done.stdout)
    assert (found["switches"], found["wrong_outputs"]) == (200, 0)
    # A session that was kept would be 100 kB; 200 of them 20 MB.
    assert found["grown_bytes"] < 4e6
    # Found without a look at the pointer in far less than a microsecond, and with one in a few.
    assert found["current_ns"] < found["current_with_look_ns"] < 50_000
