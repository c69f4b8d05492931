from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_agent import event_log
from edgewright_agent.event_log import events, follow, keep_log


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[logging.Logger]:
    logger = logging.getLogger(event_log.LOGGER)
    before, level = list(logger.handlers), logger.level
    keep_log(tmp_path)
    yield logger
    for handler in logger.handlers[len(before) :]:
        handler.close()
    logger.handlers[:] = before
    logger.setLevel(level)


def test_events_are_kept_with_their_time_and_the_newest_come_last(
    logger: logging.Logger, tmp_path: Path
) -> None:
    for number in range(5):
        logger.info("line\n%d", number)
    assert [event["message"] for event in events(tmp_path, 2)] == ["line\n3", "line\n4"]
    assert events(tmp_path, 9)[0]["level"] == "info"
    assert events(tmp_path, 9)[0]["time"].endswith("+00:00")


def test_the_log_is_bounded_and_reads_on_over_its_files(
    logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9000):
        logger.info("%06d %s", number, "x" * 300)
    files = list((tmp_path / event_log.FOLDER).iterdir())
    assert sum(file.stat().st_size for file in files) <= (event_log.OLDER_FILES + 1) * event_log.FILE_BYTES
    numbers = [int(event["message"].split()[0]) for event in events(tmp_path, 3000)]
    assert numbers == list(range(6000, 9000))


def test_a_line_cut_in_half_is_passed_over(logger: logging.Logger, tmp_path: Path) -> None:
    logger.info("before")
    path = tmp_path / event_log.FOLDER / event_log.FILE
    path.write_bytes(path.read_bytes() + b'{"time": "2026-01-01T00:\n\xff\xfe\n[1]\n')
    logger.info("after")
    assert [event["message"] for event in events(tmp_path, 9)] == ["before", "after"]


def test_a_folder_that_takes_no_log_is_no_error(tmp_path: Path) -> None:
    (tmp_path / event_log.FOLDER).write_text("a file in the way")
    keep_log(tmp_path)
    assert not any(isinstance(h, event_log._Quiet) for h in logging.getLogger(event_log.LOGGER).handlers)


def test_following_goes_on_in_the_next_file(logger: logging.Logger, tmp_path: Path) -> None:
    logger.info("old")
    found: list[str] = []
    coming = follow(tmp_path)  # from here on

    def read() -> None:
        found.extend(event["message"] for event in itertools.islice(coming, 2))

    reader = threading.Thread(target=read)
    reader.start()
    logger.info("one")
    end = time.monotonic() + 20
    while len(found) < 1 and time.monotonic() < end:
        time.sleep(0.02)
    path = tmp_path / event_log.FOLDER / event_log.FILE
    path.replace(path.with_name(f"{event_log.FILE}.1"))
    line = {"time": "2026-01-01T00:00:00+00:00", "level": "info", "message": "two"}
    path.write_text(json.dumps(line) + "\n")
    reader.join(20)
    assert found == ["one", "two"]
