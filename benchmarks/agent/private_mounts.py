"""Mounts that this process and its children alone see: a small disk, made full, and a disk made read-only."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Let this process have mounts of its own. Raises `OSError` where the system does not allow that."""
    if os.geteuid() == 0:
        _checked(_libc.unshare(CLONE_NEWNS))
    else:
        user, group = os.getuid(), os.getgid()
        _checked(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _checked(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))


def mount_memory(folder: Path, size_bytes: int) -> None:
    """A file system of that size in memory over `folder`."""
    _checked(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=%d" % size_bytes))


def remount(folder: Path, *, writable: bool) -> None:
    """Make it read-only or writable. Raises `OSError` (EBUSY) while a file of it is open for writing."""
    flags = MS_REMOUNT | (0 if writable else MS_RDONLY)
    _checked(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, None))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
