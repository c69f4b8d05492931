from __future__ import annotations

from pathlib import Path

import pytest

import edgewright_converters
from edgewright_converters.stack import user_line

OURS = f"{Path(edgewright_converters.__file__).parent}/trace.py"
TORCH = "/venv/lib/python3.11/site-packages/torch/nn/modules/module.py"
TIMM = "/venv/lib/python3.11/site-packages/timm/models/resnet.py"
PYTHON = "/usr/lib/python3.11/copy.py"


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (["/home/me/train.py", OURS, TORCH, "/home/me/net.py", TORCH, OURS], "net.py:4"),
        (["/home/me/net.py", TORCH], "net.py:1"),
        ([OURS, TORCH, "/home/me/net.py", TIMM, TORCH], "net.py:3"),
        ([OURS, TORCH, TIMM, TORCH, PYTHON], "resnet.py:3"),
        (["/home/me/train.py", OURS, TORCH, "<eval_with_key>.11"], ""),
        ([], ""),
    ],
)
def test_the_innermost_line_of_the_users_own_is_found(files: list[str], line: str) -> None:
    stack = "".join(f'  File "{file}", line {i}, in f\n    x()\n' for i, file in enumerate(files, 1))
    assert user_line(stack) == line
