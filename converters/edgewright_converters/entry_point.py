"""`module:function`, the form in which a user names Python code: a model to build or data to yield."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
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
    with users_code("importing it fails", text, error):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as missing:
            problem = f"there is no Python module '{missing.name}'"
            remedy = "run the command in the folder that holds it, or install it"
            raise error(problem, where=text, remedy=remedy) from None
    function = getattr(module, name, None)
    if function is None:
        raise error(f"module '{module_name}' has no '{name}'", where=text, remedy="name a function in it")
    if not callable(function):
        raise error(f"is {type(function).__name__}, not a function", where=text, remedy="name a function")
    return function  # type: ignore[no-any-return]


@contextlib.contextmanager
def users_code(problem: str, where: str, error: type[EdgewrightError]) -> Iterator[None]:
    """What the user's code raises in the block becomes `error`; so does its wish to end the process.

    Errors of the family pass.
    """
    try:
        yield
    except EdgewrightError:
        raise
    except (Exception, SystemExit) as failure:
        raise error(f"{problem} ({one_line(failure)})", where=where, remedy="mend it there") from failure


def one_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:240]}" if lines else type(error).__name__
