from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from edgewright.durable_file import check_writable, write_durably
from edgewright.errors import StorageError


def test_check_leaves_nothing_behind_and_wants_no_folder_yet(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder" / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_kept_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("old")
    check_writable(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "old"


@pytest.mark.parametrize(
    ("path", "problem"), [(".", "is a folder"), ("file/page.html", "a part of the path is a file")]
)
def test_path_that_can_be_no_file_is_one_line(tmp_path: Path, path: str, problem: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=problem) as caught:
        check_writable(tmp_path / path)
    assert "\n" not in str(caught.value)


def test_disk_that_takes_no_more_is_found_by_the_check(tmp_path: Path) -> None:
    # A file-size limit makes the kernel itself refuse the write, as a full disk does.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(StorageError):
            check_writable(tmp_path / "page.html")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_becomes_read_only_while_a_file_is_written_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even what was written so far can then not be removed, which must not hide the reason."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match="the file system is read-only"):
        write_durably(tmp_path / "file", b"new")


def test_every_folder_that_is_made_is_durable_in_the_one_that_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_durably(tmp_path / "a" / "b" / "c" / "file", b"")
    folders = [path for path in synced if path.is_dir()]
    assert set(folders[:-1]) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    assert folders[-1] == tmp_path / "a" / "b" / "c"
    synced.clear()
    write_durably(tmp_path / "a" / "b" / "c" / "file", b"")
    assert [path for path in synced if path.is_dir()] == [tmp_path / "a" / "b" / "c"]
