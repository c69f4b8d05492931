from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.errors import StorageError
from edgewright.object_store import open_store
from edgewright.object_store.folder import STEP, FolderStore

SIZE = 40 * STEP + 7


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "store").mkdir()
    return FolderStore(tmp_path / "store")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


class _CutError(Exception):
    pass


def cut_at(limit: int) -> tuple[list[int], object]:
    sent = [0]

    def sending(size: int) -> None:
        if sent[0] + size > limit:
            raise _CutError
        sent[0] += size

    return sent, sending


def test_an_upload_that_was_cut_goes_on_and_is_not_seen_before_its_end(
    store: FolderStore, file: Path
) -> None:
    sent, sending = cut_at(30 * STEP)
    with pytest.raises(_CutError):
        store.put("a/b", file, sending)  # type: ignore[arg-type]
    assert list(store.objects()) == []
    again, counting = cut_at(10**9)
    store.put("a/b", file, counting)  # type: ignore[arg-type]
    assert sent[0] + again[0] == SIZE
    assert store.read("a/b") == file.read_bytes()
    assert store.read("a/b", 5) == file.read_bytes()[:5]
    assert [(found.key, found.size) for found in store.objects("a/")] == [("a/b", SIZE)]
    assert list(store.objects("b")) == []


@pytest.mark.parametrize("rest", [b"what a power cut left", bytes(SIZE + 5)])
def test_a_half_file_that_holds_something_else_is_written_anew(
    rest: bytes, store: FolderStore, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "store" / ".key.partial").write_bytes(rest)
    store.put("key", file)
    assert store.read("key") == file.read_bytes()
    assert not list((tmp_path / "store").glob(".*"))


def test_what_is_there_is_not_written_again(store: FolderStore, file: Path, tmp_path: Path) -> None:
    store.put("key", file)
    sent, sending = cut_at(0)
    store.put("key", file, sending)  # type: ignore[arg-type]
    assert sent == [0]


def test_halves_are_abandoned_and_objects_deleted_by_their_prefix(store: FolderStore, file: Path) -> None:
    for key in ("x/one", "y/two"):
        with pytest.raises(_CutError):
            store.put(key, file, cut_at(STEP)[1])  # type: ignore[arg-type]
    assert (store.abandon("x/"), store.abandon("x/"), store.abandon("")) == (1, 0, 1)
    store.put("x/one", file)
    store.delete("x/one")
    store.delete("x/one")
    assert list(store.objects()) == []


def test_a_share_that_is_not_mounted_is_not_made(tmp_path: Path, file: Path) -> None:
    store = open_store(f"file://{tmp_path}/absent")
    with pytest.raises(StorageError, match="make or mount it"):
        store.put("key", file)
    with pytest.raises(StorageError, match="make or mount it"):
        list(store.objects())
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/x", "a//b", ""])
def test_a_key_never_leads_out_of_the_store(key: str, store: FolderStore, file: Path) -> None:
    with pytest.raises(StorageError, match="no path below"):
        store.put(key, file)


_UPLOADS = """
import sys
from pathlib import Path
from edgewright.object_store import open_store
sent = 0
def tell(size):
    global sent
    sent += size
    print(sent, flush=True)
open_store(sys.argv[1]).put("large", Path(sys.argv[2]), tell)
"""


@pytest.mark.slow
def test_kill_9_at_any_byte_loses_nothing(tmp_path: Path, file: Path) -> None:
    for number, kill_at in enumerate((1, 5 * STEP, 39 * STEP)):
        folder = tmp_path / str(number)
        folder.mkdir()
        child = subprocess.Popen(
            [sys.executable, "-c", _UPLOADS, str(folder), str(file)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        next((line for line in child.stdout if int(line) >= kill_at), None)
        child.send_signal(signal.SIGKILL)
        child.wait()
        store = FolderStore(folder)
        assert [found.size for found in store.objects()] in ([], [SIZE])
        store.put("large", file)
        assert store.read("large") == file.read_bytes()
