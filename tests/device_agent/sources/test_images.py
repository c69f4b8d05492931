from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import edgewright as ew
import edgewright_agent.sources.images as images_module
from device_agent.sources.conftest import PREPROCESSING, save
from edgewright.artifact.manifest import ModelFormat
from edgewright.errors import DataError
from edgewright.preprocessing import preprocess
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import quantise, raw_input
from edgewright_agent.sources.images import ImageFiles
from edgewright_agent.sources.source import Sample, SampleError, SourceMissingError
from edgewright_converters.calibration import load_samples


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "SCAN_S", 0.01)
    monkeypatch.setattr(images_module, "MISSING_S", 0.02)
    monkeypatch.setattr(
        images_module, "SCAN_SHARE", 1.0
    )  # a scan that was held up delays the next no further


def drained(source: ImageFiles, most: int = 1000) -> list[Sample]:
    """Everything that it gives until it looked ten times and found nothing, or until there are so many."""
    samples: list[Sample] = []
    looks = 0
    while looks < 10 and len(samples) < most:
        sample = source.next(0)
        if sample is not None:
            samples.append(sample)
            looks = 0
        else:
            looks += 1
            time.sleep(2 * images_module.SCAN_S)
    return samples


def names(samples: list[Sample]) -> list[str]:
    return [Path(sample.prepare.args[0]).name for sample in samples]  # type: ignore[attr-defined]


def test_a_photo_is_prepared_as_the_manifest_says(tmp_path: Path, photo_model: Model) -> None:
    file = save(tmp_path / "in" / "a.png", 1)
    (sample,) = drained(ImageFiles(tmp_path / "in"))
    raw = sample.prepare(photo_model)["image"]
    spec = photo_model.inputs[0]
    assert (raw.dtype, raw.shape) == (np.int8, (1, 3, 4, 6))
    np.testing.assert_array_equal(raw, quantise(preprocess(file, PREPROCESSING)[np.newaxis], spec))
    assert set(photo_model.run_raw({"image": raw})) == {"scores"}
    assert sample.captured_s == file.stat().st_mtime


def test_new_and_changed_files_are_picked_up_each_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    save(folder / "b.jpg", 1)
    save(folder / "cam" / "a.png", 2)
    (folder / "notes.txt").write_text("no image")
    source = ImageFiles(folder)
    assert sorted(names(drained(source))) == ["a.png", "b.jpg"]
    assert drained(source) == []
    save(folder / "c.webp", 3)
    assert names(drained(source)) == ["c.webp"]
    save(folder / "b.jpg", 4)
    assert names(drained(source)) == ["b.jpg"]


def test_a_file_is_taken_only_when_it_has_stopped_growing(tmp_path: Path, photo_model: Model) -> None:
    whole = save(tmp_path / "whole.png", 1).read_bytes()
    source = ImageFiles(tmp_path / "in" / "*.png")
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "slow.png").open("wb") as file:
        for at in range(0, len(whole), 100):
            file.write(whole[at : at + 100])
            file.flush()
            assert source.next(0) is None
            time.sleep(0.012)
    (sample,) = drained(source)
    sample.prepare(photo_model)


def test_repeating_starts_over_after_the_last(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "in" / f"{i}.png", i)
    samples = names(drained(ImageFiles(tmp_path / "in", repeat=True), 7))
    assert samples == ["0.png", "1.png", "2.png", "0.png", "1.png", "2.png", "0.png"]


def test_a_missing_folder_is_reported_now_and_then_and_found_when_it_comes(tmp_path: Path) -> None:
    source = ImageFiles(tmp_path / "in")
    reports, begun = 0, time.monotonic()
    while reports < 3:
        try:
            assert source.next(0) is None
        except SourceMissingError as error:
            assert str(error) == f"{tmp_path}/in: there is no such folder of images"
            reports += 1
    assert time.monotonic() - begun >= 2 * images_module.MISSING_S
    save(tmp_path / "in" / "a.png", 1)
    assert names(drained(source)) == ["a.png"]
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(SourceMissingError):
        drained(source)


def test_a_file_that_is_removed_before_its_turn_is_passed_over(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "in" / f"{i}.png", i)
    source = ImageFiles(tmp_path / "in")
    while (first := source.next(0)) is None:
        time.sleep(0.005)
    (tmp_path / "in" / "1.png").unlink()
    assert names([first, *drained(source)]) == ["0.png", "2.png"]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_file_that_is_no_image_is_an_error_of_that_sample(
    tmp_path: Path, photo_model: Model, content: bytes
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    (sample,) = drained(ImageFiles(tmp_path / "*.png"))
    with pytest.raises(SampleError, match=r"a\.png: is not an image that can be read"):
        sample.prepare(photo_model)


def test_a_model_that_knows_no_photos_is_the_models_failure(tmp_path: Path, plain_model: Model) -> None:
    save(tmp_path / "a.png", 1)
    (sample,) = drained(ImageFiles(tmp_path / "*.png"))
    with pytest.raises(DataError, match="describes no preprocessing") as caught:
        sample.prepare(plain_model)
    assert not isinstance(caught.value, SampleError)


def test_names_that_look_like_patterns_are_no_trouble_in_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "in" / "[a]*.png", 1)
    os.utime(tmp_path / "in" / "[a]*.png", (1e10, 1e10))  # a clock that is far in the future
    (sample,) = drained(ImageFiles(tmp_path / "in"))
    assert sample.captured_s == 1e10


@pytest.mark.slow
@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
def test_a_device_sees_bit_for_bit_what_the_converter_calibrated_with(
    tmp_path: Path, model_format: ModelFormat
) -> None:
    """The formats differ in axis order and quantisation; converted from a folder of photos."""
    folder = tmp_path / "photos"
    for i in range(6):
        save(folder / f"{i}.png", i)
    folder.joinpath("preprocessing.json").write_text(
        '{"height": 8, "width": 8, "mean": [120, 110, 100], "std": [60, 61, 62]}'
    )
    ew.convert(
        "device_agent.sources.photo_net:net",
        calibration=folder,
        profile="x86-64-gateway",
        format=model_format,
        output=tmp_path / "out",
        keep_failed=True,
        effort="quick",
        precision="int8",
    )
    model = ew.load(tmp_path / "out")
    assert isinstance(model, Model)
    assert model.artifact is not None
    calibrated = [sample.inputs["image"] for sample in load_samples(folder, ["image"])]
    seen = [sample.prepare(model)["image"] for sample in drained(ImageFiles(folder))]
    assert seen[0].dtype.kind in "iu"
    for raw, real in zip(seen, calibrated, strict=True):
        np.testing.assert_array_equal(raw, raw_input(real, model.inputs[0]))
    golden = model.artifact.golden().inputs["image"]
    assert all(any(np.array_equal(vector, raw) for raw in seen) for vector in golden)

    # The model is for any thread: answers are the same from four at once as from one.
    alone = [model.run_raw({"image": raw}) for raw in seen]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda raw: model.run_raw({"image": raw}), seen * 100))
    for i, answer in enumerate(together):
        for name, output in answer.items():
            np.testing.assert_array_equal(output, alone[i % 6][name])
