"""Who may do what on the hub's page: tokens by role from a file, and sessions of browsers.

A line of the file is `ROLE SHA256 NAME`; the token itself is in no file. It is 256 random bits, so that a
plain SHA-256 cannot be searched and a slow hash would only slow the hub. `viewer` may read where reading is
closed, `operator` may also pause and abort. Comparisons take the same time whatever they compare.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgewright.durable_file import storage_error, write_durably
from edgewright.errors import ConfigError

Role = Literal["viewer", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)
SESSION_S = 8 * 3600.0
"""A shift; then the token is asked for again."""
MAX_SESSIONS = 1000
_LINE = re.compile(r"(viewer|operator) ([0-9a-f]{64}) ([A-Za-z0-9][A-Za-z0-9._-]{0,63})")


@dataclass(frozen=True)
class Holder:
    """Whose token it is."""

    name: str
    role: Role

    @property
    def may_write(self) -> bool:
        """Whether rollouts may be paused and aborted."""
        return self.role == "operator"


@dataclass(frozen=True)
class Session:
    """A browser that showed a token; `csrf` is in its forms, and no other site can know it."""

    holder: Holder
    csrf: str
    until_s: float


def add_token(path: Path, name: str, role: Role) -> str:
    """A new token, shown once: the file gets its hash. Raises `ConfigError`, `StorageError`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(f"'{name}' is no name for a token", remedy="use letters, digits, dots and dashes")
    lines = _lines(path) if path.exists() else []
    if any(line.split()[2] == name for line in lines):
        raise ConfigError(
            f"holds a token named '{name}' already", where=str(path), remedy="take its line out first"
        )
    token = secrets.token_urlsafe(32)
    write_durably(path, "".join(f"{line}\n" for line in [*lines, f"{role} {_hash(token)} {name}"]).encode())
    path.chmod(0o600)
    return token


class Tokens:
    """The tokens of a file, read again when it changes, and the sessions that they opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._holders: dict[str, Holder] = {}
        self._changed_ns = -1
        self._refresh()

    def holder(self, token: str) -> Holder | None:
        """Whose token this is."""
        self._refresh()
        wanted, found = _hash(token), None
        for kept, holder in self._holders.items():
            if hmac.compare_digest(kept, wanted):
                found = holder
        return found

    def open_session(self, holder: Holder) -> tuple[str, Session]:
        """A session for a browser, and the value of its cookie."""
        value = secrets.token_urlsafe(32)
        session = Session(holder, secrets.token_urlsafe(32), time.monotonic() + SESSION_S)
        with self._lock:
            while len(self._sessions) >= MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_hash(value)] = session
        return value, session

    def session(self, value: str) -> Session | None:
        """The session of a cookie, while it lasts and its token is still in the file."""
        self._refresh()
        with self._lock:
            session = self._sessions.get(_hash(value))
        alive = session is not None and session.until_s > time.monotonic()
        return session if alive and session and session.holder in self._holders.values() else None

    def close_session(self, value: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_hash(value), None)

    def _refresh(self) -> None:
        try:
            changed_ns = self._path.stat().st_mtime_ns
        except OSError as error:
            raise storage_error(error, self._path) from None
        if changed_ns != self._changed_ns:
            rows = (line.split() for line in _lines(self._path))
            self._holders = {kept: Holder(name, role) for role, kept, name in rows}  # type: ignore[arg-type]
            self._changed_ns = changed_ns


def _lines(path: Path) -> list[str]:
    """The lines that hold a token. Raises `ConfigError` where one does not, or others may write the file."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError("may be written by other users", where=str(path), remedy=f"chmod 600 {path}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise storage_error(error, path) from None
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", where=str(path)) from None
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            if not _LINE.fullmatch(line):
                raise ConfigError(
                    f"line {number} is not 'ROLE SHA256 NAME'",
                    where=str(path),
                    remedy="make tokens with 'edgewright fleet token'",
                )
            lines.append(line)
    return lines


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
