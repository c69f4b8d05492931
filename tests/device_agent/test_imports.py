"""What an agent imports costs every device memory and time to start."""

from __future__ import annotations

import subprocess
import sys

UNUSED = (
    "rich",  # draws tables
    "google.protobuf.json_format",  # writes telemetry as JSON
    "http.server",  # the inference API
    "torch",
    "tensorflow",
    "onnx",
    "kubernetes",
    "onnxruntime",  # imported with the first model
    "ai_edge_litert",
    "cv2",
    "tuf",  # a process of its own checks signatures
    "securesystemslib",
    "cryptography",
    "PIL",
)


def test_an_agent_that_serves_its_own_source_imports_nothing_that_it_does_not_use() -> None:
    program = "import sys, edgewright_cli.agent, edgewright_agent.agent; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "edgewright_agent.agent" in imported
    assert imported.isdisjoint(UNUSED), imported & set(UNUSED)
