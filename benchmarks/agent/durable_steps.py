"""The durable steps of a process that writes files, and what is done to it at the n-th of them.

A step is whatever changes what the disk holds: opening a file to write, renaming, removing, making or removing
a folder (Python's own audit events, raised before the system call) and every fsync. Nothing in the code under
test knows of it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"}
_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
AtStep = Callable[[int, str], None]
"""Called before each step with its number, from 1, and its name; what it raises is raised by the step."""


def watch_steps(at_step: AtStep, folder: Path) -> None:
    """Call `at_step` before each durable step of the calling thread of this process, from now on.

    Of a file that is opened, one below `folder` counts; a forked child is not watched. Cannot be undone.
    """
    pid, thread, count = os.getpid(), threading.get_ident(), 0
    inside = False

    def step(name: str) -> None:
        nonlocal count, inside
        if inside or os.getpid() != pid or threading.get_ident() != thread:
            return
        count += 1
        inside = True
        try:
            at_step(count, name)
        finally:
            inside = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES:
            step(event)
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _FOR_WRITING and str(path).startswith(str(folder)):
                step("open")

    flush = os.fsync

    def fsync(descriptor: int) -> None:
        step("fsync")
        flush(descriptor)

    vars(os)["fsync"] = fsync
    sys.addaudithook(hook)


def kill_this_process() -> None:
    """As `kill -9` would: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


class FlushedDisk:
    """What of a folder would survive a power cut: files as of their own fsync, names as of their folder's.

    Stricter than a journalling file system, which may keep more: of what was not flushed, nothing survives, or
    with `random` each name and each content by chance (of a file, also a part).
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {}
        self._flush = os.fsync
        self._is_cut = False
        for folder, _, names in os.walk(root):
            self._keep_folder(folder)
            for name in names:
                self._keep_file(f"{folder}/{name}")
        vars(os)["fsync"] = self._fsync

    def _fsync(self, descriptor: int) -> None:
        self._flush(descriptor)
        path = f"/proc/self/fd/{descriptor}"
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._keep_folder(path)
        else:
            self._keep_file(path)

    def _keep_folder(self, path: str) -> None:
        self._folders[Path(path).stat().st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}

    def _keep_file(self, path: str) -> None:
        self._files[Path(path).stat().st_ino] = Path(path).read_bytes()

    def cut(self, chance: random.Random | None) -> None:
        """Leave in the folder what survives, by `chance` more than must, and end this process."""
        if self._is_cut:  # a step of its own, below
            return
        self._is_cut = True
        now_files: dict[int, bytes] = {}
        now_folders: dict[int, dict[str, int]] = {}
        for folder, _, names in os.walk(self._root):
            now_folders[Path(folder).stat().st_ino] = {e.name: e.inode() for e in os.scandir(folder)}
            now_files |= {Path(folder, n).stat().st_ino: Path(folder, n).read_bytes() for n in sorted(names)}

        def survives() -> bool:
            return chance is not None and chance.random() < 0.5

        def names_of(inode: int) -> dict[str, int]:
            kept, now = self._folders.get(inode, {}), now_folders.get(inode, {})
            views = {name: now if survives() else kept for name in sorted({*kept, *now})}
            return {name: view[name] for name, view in views.items() if name in view}

        def content_of(inode: int) -> bytes:
            kept, now = self._files.get(inode), now_files.get(inode, b"")
            if kept == now or not survives():
                return kept or b""
            assert chance is not None
            return now[: chance.randint(0, len(now))]

        def build(inode: int, at: Path) -> None:
            at.mkdir(exist_ok=True)
            for name, child in names_of(inode).items():
                if child in now_folders or child in self._folders:
                    build(child, at / name)
                else:
                    (at / name).write_bytes(content_of(child))

        inode = self._root.stat().st_ino
        for path in self._root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        build(inode, self._root)
        kill_this_process()
