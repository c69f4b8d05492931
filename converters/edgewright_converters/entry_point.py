"""`module:function`, the form in which a user names Python code: a model to build or data to yield."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError


def is_entry_point(text: str) -> bool:
    """Whether it reads as `package.module:function`."""
    module, separator, function = text.partition(":")
    return bool(separator) and all(part.isidentifier() for part in (*module.split("."), function))


def load_entry_point(text: str, error: type[EdgewrightError]) -> Callable[[], Any]:
    """The function that `text` names, found from the current folder as `python -m` would.

    Raises `error` where it cannot be imported.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module_name, _, name = text.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as missing:
        raise error(f"there is no Python module '{missing.name}'", where=text) from None
    except AttributeError:
        raise error(f"module '{module_name}' has no '{name}'", where=text) from None
    except Exception as failure:
        raise error(f"importing it fails: {one_line(failure)}", where=text) from failure
    if not callable(function):
        raise error(f"is {type(function).__name__}, not a function", where=text)
    return function  # type: ignore[no-any-return]


def one_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:240]}" if lines else type(error).__name__
