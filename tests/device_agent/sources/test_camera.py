"""A video file goes through the code that a camera does; there is no camera on a test machine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from device_agent.sources.conftest import PREPROCESSING
from edgewright.errors import RuntimeUnavailableError
from edgewright.preprocessing import preprocess
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import quantise
from edgewright_agent.sources import camera as camera_module
from edgewright_agent.sources.camera import Camera, without_password
from edgewright_agent.sources.source import Sample, SourceMissingError, SourceSilentError

cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless")
FPS = 50
FRAMES = 40


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Each frame one colour, by which it is known: red grows, green falls, blue stays."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), FPS, (30, 20))  # FFV1 loses nothing
    assert writer.isOpened()
    for i in range(FRAMES):
        writer.write(np.full((20, 30, 3), (7, 200 - 4 * i, 4 * i), np.uint8))  # blue, green, red
    writer.release()
    return path


def frame_of(sample: Sample | None) -> np.ndarray:
    assert sample is not None
    return sample.prepare.args[0]  # type: ignore[attr-defined,no-any-return]


def number_of(sample: Sample | None) -> int:
    return round(float(frame_of(sample)[..., 0].mean()) / 4)


def test_frames_are_red_green_blue_and_prepared_as_a_photo_is(clip: Path, photo_model: Model) -> None:
    source = Camera(str(clip), silent_s=60)
    sample = source.next(5)
    frame = frame_of(sample)
    assert frame.shape == (20, 30, 3)
    red, green, blue = (int(channel) for channel in frame[10, 15])
    assert abs(200 - green - red) <= 2
    assert abs(blue - 7) <= 2
    assert sample is not None
    np.testing.assert_array_equal(
        sample.prepare(photo_model)["image"],
        quantise(preprocess(frame, PREPROCESSING)[np.newaxis], photo_model.inputs[0]),
    )
    assert abs(sample.captured_s - time.time()) < 5
    source.close()


def test_a_slow_reader_gets_new_frames_and_no_queue_of_old_ones(clip: Path) -> None:
    source = Camera(str(clip), silent_s=60)
    first = number_of(source.next(5))
    time.sleep(10 / FPS)
    second = number_of(source.next(5))
    assert second - first >= 5
    source.close()


def test_a_stream_that_ends_is_reported_and_connected_anew(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_module, "FIRST_WAIT_S", 0.05)
    source = Camera(str(clip), silent_s=60)
    end = time.monotonic() + 20
    with pytest.raises(SourceMissingError, match=r"clip\.avi: has ended"):
        while time.monotonic() < end:
            source.next(0.1)
    assert number_of(source.next(5)) < 10
    source.close()


def test_a_camera_that_is_not_there_is_reported_with_growing_pauses_and_found_when_it_comes(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_module, "FIRST_WAIT_S", 0.05)
    late = tmp_path / "late.avi"
    source = Camera(str(late), silent_s=60)
    reports, end = 0, time.monotonic() + 1.5
    while time.monotonic() < end:
        try:
            assert source.next(0.1) is None
        except SourceMissingError as error:
            assert str(error) == f"{late}: cannot be opened"
            reports += 1
    assert 2 <= reports <= 5  # after 0.1, 0.2, 0.4, 0.8 s
    late.symlink_to(clip)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if source.next(0.2) is not None:
                break
        except SourceMissingError:
            continue
    else:
        raise AssertionError
    source.close()


def test_a_device_node_that_is_no_camera_is_one_line() -> None:
    source = Camera("/dev/null", silent_s=60)
    with pytest.raises(SourceMissingError, match="/dev/null: cannot be opened"):
        source.next(10)
    source.close()


def test_a_camera_without_a_frame_is_silent(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Camera, "_watch", lambda self: self._closing.wait(5))
    source = Camera("rtsp://user:secret@10.0.0.9/stream", silent_s=0.2)
    with pytest.raises(SourceSilentError, match=r"has said nothing for 0\.2 s") as caught:
        while True:
            source.next(0.05)
    assert "secret" not in str(caught.value)
    source.close()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:p@ss@10.0.0.9:554/a?token=b", "rtsp://…@10.0.0.9:554/a"),
        ("rtsp://10.0.0.9/a", "rtsp://10.0.0.9/a"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert without_password(address) == shown


def test_neither_the_agent_nor_opencv_tells_a_password(tmp_path: Path) -> None:
    program = (
        "from edgewright_agent.sources.camera import Camera\n"
        "source = Camera('rtsp://user:secret@127.0.0.1:9/stream', silent_s=60)\n"
        "try:\n    source.next(20)\n"
        "except Exception as error:\n    print(error)\n"
        "source.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "rtsp://…@127.0.0.1:9/stream: cannot be opened\n"
    assert "secret" not in done.stderr


def test_without_opencv_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'edgewright\[agent-camera\]'"):
        Camera("/dev/video0", silent_s=60)
