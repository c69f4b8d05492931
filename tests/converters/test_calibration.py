from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_data
from PIL import Image

from edgewright.errors import DataError
from edgewright_converters.calibration import SampleSet, load_samples, unexercised

IMAGES = toy_data.images()
PREPROCESSING = '{"height": 8, "width": 8, "mean": [127, 127, 127], "std": [128, 128, 128]}'


def stacked(samples: SampleSet) -> Any:
    return np.concatenate([sample.inputs["image"] for sample in samples])


@pytest.fixture()
def photos(tmp_path: Path) -> Path:
    """Two classes of two photos, and how they become inputs."""
    for number, name in enumerate(["cat/a.png", "cat/b.jpg", "dog/c.png", "dog/d.webp"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "preprocessing.json").write_text(PREPROCESSING)
    return tmp_path


@pytest.mark.parametrize("form", ["dicts", "pairs", "arrays", "loader"])
def test_function_may_yield_batches_in_any_form_that_loaders_use(form: str) -> None:
    samples = load_samples(f"toy_data:{form}", ["image"])
    assert (samples.count, samples.has_labels) == (10, form != "arrays")
    for _ in range(2):
        np.testing.assert_array_equal(stacked(samples), IMAGES)
    labels = [sample.label for sample in samples]
    assert labels == (samples.labels.tolist() if samples.labels is not None else [None] * 10)


def test_same_samples_have_the_same_digest_whatever_form_they_come_in(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", image=IMAGES)
    np.save(tmp_path / "b.npy", IMAGES)
    forms: list[Any] = [
        {"x": IMAGES},
        IMAGES,
        (IMAGES, np.arange(10)),
        tmp_path / "a.npz",
        str(tmp_path / "b.npy"),
        "toy_data:dicts",
        toy_data.pairs,
        toy_data.loader(),
    ]
    digests = {load_samples(form, ["image"]).digest() for form in forms}
    assert len(digests) == 1
    assert load_samples({"x": IMAGES + 1}, ["image"]).digest() not in digests


def test_sample_that_is_kept_does_not_keep_its_batch() -> None:
    for sample in load_samples({"x": IMAGES, "y": np.arange(10)}, ["image"]).spread(3):
        assert sample.inputs["image"].base is None and sample.inputs["image"].flags.writeable


def test_first_samples_are_had_without_the_rest() -> None:
    samples = load_samples("toy_data:dicts", ["image"])
    assert [s.label for s in samples.head(3)] == [0, 1, 2]
    assert len(samples.head(99)) == 10


def test_photos_are_decoded_in_order_with_their_class(photos: Path) -> None:
    samples = load_samples(photos, ["image"])
    assert samples.classes == ("cat", "dog")
    assert [s.label for s in samples] == [0, 0, 1, 1]
    assert all(s.inputs["image"].shape == (1, 3, 8, 8) for s in samples)
    assert samples.preprocessing is not None


def test_photo_that_cannot_be_decoded_is_named(photos: Path) -> None:
    (photos / "dog" / "broken.png").write_bytes((photos / "cat" / "a.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"dog/broken\.png: is not an image that can be read"):
        load_samples(photos, ["image"])


def test_what_systems_put_beside_photos_is_no_class_and_no_photo(photos: Path) -> None:
    (photos / ".ipynb_checkpoints").mkdir()
    for place in (photos / ".ipynb_checkpoints" / "a.png", photos / "._a.png", photos / "cat" / "._a.png"):
        place.write_bytes(b"not a photo")
    samples = load_samples(photos, ["image"])
    assert (samples.classes, samples.count) == (("cat", "dog"), 4)


def test_numbers_of_another_byte_order_are_taken() -> None:
    samples = load_samples({"x": IMAGES.astype(">f4")}, ["image"])
    assert samples.digest() == load_samples({"x": IMAGES}, ["image"]).digest()


def test_optional_input_is_taken_where_the_data_holds_it() -> None:
    ids, mask = np.arange(12).reshape(4, 3), np.ones((4, 3), np.float32)
    assert load_samples({"x": ids}, ["ids"], ["mask"]).input_names == ("ids",)
    assert load_samples({"mask": mask, "ids": ids}, ["ids"], ["mask"]).input_names == ("ids", "mask")
    with pytest.raises(DataError, match=r"holds mask, but the model takes ids \(or x\), and optionally mask"):
        load_samples({"mask": mask}, ["ids"], ["mask"])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("toy_data:nothing", "holds no sample"),
        ("toy_data:none", "fails (TypeError"),
        ("toy_data:raises", "fails at batch 1 (KeyError"),
        ("toy_data:raises_at_once", "fails (OSError: the disk is away)"),
        ("toy_data:strings", "batch 0: is str"),
        ("toy_data:shapes", "'image' is float32[2, 8, 12] in sample 4, but float32[2, 12, 12]"),
        ("toy_data:dtypes", "'image' is float64[2, 12, 12] in sample 4, but float32[2, 12, 12]"),
        ("toy_data:labels_stop", "labels 'y' are given for some samples alone, unlike before at 4"),
        ("toy_data:few_labels", "labels 'y' are int64[3]; they must be 4 integers"),
        ("toy_data:nan", "array 'image' has NaN or infinity, first in sample 6"),
        ("toy_data:unequal", "holds left, right, but the model takes image (or x)"),
        ("toy_data:missing", "module 'toy_data' has no 'missing'"),
        ("no_such_module:data", "there is no Python module 'no_such_module'"),
        ("nowhere.npz", "nowhere.npz: does not exist"),
        (toy_data.dicts(), "can be read only once"),
        ({"x": IMAGES, "y": np.zeros(10)}, "labels 'y' are float64[10]; they must be 10 integers"),
        ({"x": IMAGES, "y": np.eye(10, dtype=int)}, "labels 'y' are int64[10, 10]"),
        ({"x": IMAGES, "y": np.array([0, -1] * 5)}, "must be class indices, and -1 at sample 1 is none"),
        ({"x": IMAGES.astype(complex)}, "complex128"),
        ({"x": np.float32(3)}, "not samples"),
        ("toy_data:leaves", "fails (SystemExit: 0); mend it there"),
        ("toy_data:leaves_at_a_batch", "fails at batch 1 (SystemExit: gone)"),
        ("toy_data:no_memory", "'x' is no array (NotImplementedError"),
        ({"x": IMAGES, "y": np.full(10, 2**63 + 5, np.uint64)}, "9223372036854775813 at sample 0 is none"),
        ({"x": np.full((2, 1, 4, 4), 3e38, np.float32) * [[[[1]]], [[[-1]]]]}, "wider than float32 can tell"),
        ("/dev/null", "is neither a file nor a folder"),
        ({"x": IMAGES[:, :, :0]}, "'image' is empty in sample 0"),
        ({}, "holds nothing"),
        ({"x": IMAGES[:0]}, "holds no sample"),
    ],
)
def test_bad_data_is_one_line_that_says_what_and_where(data: Any, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        load_samples(data, ["image"])
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unequal_numbers_of_samples_are_shown() -> None:
    with pytest.raises(DataError, match=r"same number of samples from 0 on \(left: 4, right: 3\)"):
        load_samples("toy_data:unequal", ["left", "right"])


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("shuffled", "gives other samples when it is read again"),
        ("shrinks", "gives 2 samples when it is read again, 4 before"),
    ],
)
def test_data_that_changes_between_passes_is_refused(function: str, problem: str) -> None:
    samples = load_samples(f"toy_data:{function}", ["image"])
    with pytest.raises(DataError, match=problem):
        for _ in samples:
            pass


def test_input_that_never_changes_is_refused_and_a_dead_channel_is_told() -> None:
    with pytest.raises(DataError, match="input 'image' is 1 throughout all 10 samples"):
        unexercised(load_samples({"x": np.ones_like(IMAGES)}, ["image"]))
    dead = IMAGES.copy()
    dead[:, 1] = 0.5
    (line,) = unexercised(load_samples({"x": dead}, ["image"]))
    assert "1 of 2 channels of input 'image'" in line
    assert "index 1)" in line
    assert unexercised(load_samples({"x": IMAGES}, ["image"])) == ()
    # Ids and masks are not quantised, so that a constant one leaves nothing unmeasured.
    assert unexercised(load_samples({"x": np.ones((4, 3), np.int64)}, ["ids"])) == ()


_PEAK = """
import pathlib, resource, sys
from edgewright_converters.calibration import load_samples
samples = load_samples(sys.argv[1], ["image"])
assert sum(1 for _ in samples) == samples.count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npz", "compressed npz", "npy", "function"])
def test_memory_does_not_grow_with_the_data(tmp_path: Path, form: str) -> None:
    def peak_kib(mib: int) -> int:
        shape = (mib * 4, 64, 32, 32)  # a quarter of a MiB a sample
        data = str(tmp_path / f"{mib}.{form.split()[-1]}")
        if form == "function":
            (tmp_path / f"made_{mib}.py").write_text(
                "import numpy as np\n"
                "def batches():\n"
                f"    for i in range({mib * 4}):\n"
                f"        yield np.random.default_rng(i).random({(1, *shape[1:])}, np.float32)\n"
            )
            data = f"made_{mib}:batches"
        else:
            array = np.random.default_rng(0).random(shape, np.float32).round(1)
            if form == "npy":
                np.save(data, array)
            else:
                (np.savez_compressed if "compressed" in form else np.savez)(data, x=array)
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, data], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    # 184 MiB more of data; what is allowed is the noise of the interpreter and its allocator.
    assert peak_kib(192) - peak_kib(8) < 24 * 1024
