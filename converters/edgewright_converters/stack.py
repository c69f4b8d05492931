"""Finds the line of the user's own Python in a stack, as text: what an error about a model should name."""

from __future__ import annotations

import re
from pathlib import Path

import onnx

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_EXPORTERS = re.compile(r"-packages/(torch|litert_torch)/|/lib/python3\.\d+/(?!(site|dist)-packages/)")
"""Torch, the exporter to TFLite, and Python's own library."""
_OURS = f"{Path(__file__).parent}/"


def user_line(stack: str) -> str:
    """`file:line` of the innermost frame that is the user's own or, where none is, a library's; "" without any."""
    frames = [frame for frame in _FRAME.findall(stack) if not frame[0].startswith("<")]
    # What lies above our first frame is whoever called us.
    called = next((i for i, (file, _) in enumerate(frames) if file.startswith(_OURS)), 0)
    outside = [f for f in frames[called:] if not (f[0].startswith(_OURS) or _EXPORTERS.search(f[0]))]
    own = [frame for frame in outside if "-packages/" not in frame[0]] or outside
    return f"{own[-1][0].rsplit('/', 1)[-1]}:{own[-1][1]}" if own else ""


def node_line(node: onnx.NodeProto) -> str:
    """`file:line` from which torch exported an ONNX node, where it says so."""
    stacks = [entry.value for entry in node.metadata_props if entry.key.endswith("stack_trace")]
    return user_line(stacks[0]) if stacks else ""
