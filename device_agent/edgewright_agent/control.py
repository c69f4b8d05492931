"""How the command on the device speaks with the agent that runs there: one agent a state folder, and its socket.

The agent holds a lock on its state folder, which ends with its process whatever ends it, and answers one request a
connection on a Unix socket in it: a word in, a JSON document out. Only who may enter the folder can ask.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgewright.durable_file import storage_error
from edgewright.errors import ConfigError, EdgewrightError

log = logging.getLogger("edgewright.agent")
LOCK, SOCKET = "agent.lock", "control.sock"
ANSWER_S = 30.0
"""How long an answer may take: going back loads a model."""
REQUEST_S = 2.0
"""How long a request may take, so that one that never comes holds nobody up."""
REQUEST_BYTES = 64
Document = dict[str, Any]


@contextlib.contextmanager
def state_folder_held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two agents on the same slots would undo each other's work.

    Raises `ConfigError` where another process holds it, `StorageError`.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as error:
        raise storage_error(error, path) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "stop it, or give this one a state_dir of its own"
            raise ConfigError(
                "another agent works in this folder", where=str(folder), remedy=remedy
            ) from None
        yield


@contextlib.contextmanager
def answering(folder: Path, answers: Mapping[str, Callable[[], Document]]) -> Iterator[None]:
    """Answer requests below while the block runs. A folder that takes no socket costs the answers, no more."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        (folder / SOCKET).unlink(missing_ok=True)
        with _reachable(folder) as path:
            listener.bind(path)
        (folder / SOCKET).chmod(0o600)
        listener.listen()
    except OSError as error:
        log.warning(
            "%s; 'edgewright agent status' will not see this agent", storage_error(error, folder / SOCKET)
        )
        listener.close()
        yield
        return
    threading.Thread(target=_listen, args=(listener, answers), name="control", daemon=True).start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with contextlib.suppress(OSError):
            (folder / SOCKET).unlink()


def ask(folder: Path, request: str) -> Document | None:
    """The running agent's answer, None where none runs.

    Raises `EdgewrightError` with the agent's own words where it refuses, or where it runs and does not answer.
    """
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(ANSWER_S)
        try:
            with _reachable(folder) as path:
                channel.connect(path)
            channel.sendall(request.encode())
            channel.shutdown(socket.SHUT_WR)
            with channel.makefile("rb") as stream:
                answer = json.loads(stream.read())
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, folder / SOCKET) from None
        except ValueError:
            raise EdgewrightError("the agent gave no answer", remedy="see 'edgewright agent logs'") from None
    if "error" in answer:
        raise EdgewrightError(str(answer["error"]))
    return dict(answer)


def _listen(listener: socket.socket, answers: Mapping[str, Callable[[], Document]]) -> None:
    while True:
        try:
            channel, _ = listener.accept()
        except OSError:  # closed: the agent ends
            return
        with channel, contextlib.suppress(OSError):
            channel.settimeout(REQUEST_S)
            channel.sendall(json.dumps(_answer(channel.recv(REQUEST_BYTES), answers)).encode())


def _answer(request: bytes, answers: Mapping[str, Callable[[], Document]]) -> Document:
    answer = answers.get(request.decode(errors="replace"))
    if answer is None:
        return {"error": "this agent does not know that request; is it of another version?"}
    try:
        return answer()
    except EdgewrightError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - the thread that answers must be there for the next question
        return {"error": f"error in the agent: {type(error).__name__}: {error}"}


@contextlib.contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """The socket's path by way of the open folder: a socket's path holds 107 bytes (unix(7)), a folder's more."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
