"""Modules that libraries import at their top and a device seldom uses, loaded when one is used: 1.4 MB of memory.

A library that asks for one gets an empty module that loads itself when something in it is asked for
(`importlib.util.LazyLoader`), so that nothing behaves otherwise.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

SELDOM_USED = frozenset(
    {
        "google.protobuf.internal.python_message",  # messages where there is no compiled library for them
        "html",  # error pages of http.server, which the inference API does not send
        "urllib.request",  # proxies on the way to the broker
    }
)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in SELDOM_USED else None
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def import_late() -> None:
    """Call it before the agent's other modules are imported."""
    sys.meta_path.insert(0, _Finder())
