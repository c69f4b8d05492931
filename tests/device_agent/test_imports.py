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


def test_what_a_device_seldom_uses_is_loaded_when_it_is_used() -> None:
    program = """
from edgewright_agent.late_imports import SELDOM_USED, import_late
import_late()
import sys, edgewright_agent.agent, edgewright_agent.serving.listeners
loaded = [n for n in sorted(SELDOM_USED) if type(sys.modules[n]).__name__ != "_LazyModule"]
import html, urllib.request
print(loaded, html.escape("<"), urllib.request.Request("http://a/b").host)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "&lt;", "a"]
