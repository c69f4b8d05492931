"""Crops of photos that scikit-image, scikit-learn and foolbox bundle, as EfficientNet-Lite0 takes them.

A script for the environment `photos`: `python photos.py CALIBRATION.npz N EVALUATION.npz N`. No photo is used for
both: a tool cannot be good on the evaluation crops by having seen them. Of those that judge, foolbox's twenty are
ImageNet's own; with the four others alone agreement moves by two points with the crops that are drawn.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

SIZE = 224
MEAN, STD = 127.0, 128.0
"""What the weights were trained with; ImageNet's usual mean and deviation cost 15 points."""


def crops(photos: list[Any], count: int, seed: int) -> Any:
    """Random square crops, of each photo in turn: float32 [count, 3, 224, 224]."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        photo = Image.fromarray(photos[index % len(photos)]).convert("RGB")
        side = int(min(photo.size) * rng.uniform(0.4, 1.0))
        left = int(rng.integers(0, photo.width - side + 1))
        top = int(rng.integers(0, photo.height - side + 1))
        box = (left, top, left + side, top + side)
        crop = photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)
        found.append((np.asarray(crop, np.float32) - MEAN) / STD)
    return np.ascontiguousarray(np.stack(found).transpose(0, 3, 1, 2))


def imagenet_photos() -> list[Any]:
    """Of foolbox, whose import would ask for more than its files."""
    found = importlib.util.find_spec("foolbox")
    assert found is not None and found.origin is not None
    paths = sorted(Path(found.origin).with_name("data").glob("imagenet_*.jpg"))
    assert len(paths) == 20
    return [np.asarray(Image.open(path)) for path in paths]


def main() -> None:
    calibration_path, calibration_count, evaluation_path, evaluation_count = sys.argv[1:]
    for_calibration = [
        load_sample_image("china.jpg"),
        load_sample_image("flower.jpg"),
        data.stereo_motorcycle()[0],
        data.camera(),
        data.hubble_deep_field(),
        data.immunohistochemistry(),
        data.retina(),
        data.coins(),
        data.brick(),
        data.grass(),
        data.gravel(),
        data.moon(),
    ]
    for_evaluation = [data.astronaut(), data.cat(), data.coffee(), data.rocket(), *imagenet_photos()]
    np.savez(calibration_path, x=crops(for_calibration, int(calibration_count), seed=0))
    np.savez(evaluation_path, x=crops(for_evaluation, int(evaluation_count), seed=1))


main()
