"""Inputs made of noise, for a conversion without data: they show that the model runs, and drive what is measured.

Images get the spectrum of natural ones, whose amplitude falls as 1/frequency (Field 1987, "Relations between the
statistics of natural images and the response properties of cortical cells"), since white noise averages away in
the first layers. Where nobody says what range an input has, its mean and deviation are those that explain what the
first batch norm saw in training. Nothing that is measured on such inputs is the accuracy of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.batch_norm import SeenNorm
from edgewright_converters.calibration import SampleSet, load_samples
from edgewright_converters.source import InputForm

Array = NDArray[Any]
WHERE = "generated inputs"
COUNT = 32
DEVIATIONS = 4.0
"""How many deviations from its mean an input of unknown range is taken to reach; an image's never do."""


@dataclass(frozen=True)
class InputScale:
    """Mean, deviation, and the least and greatest value of the float inputs."""

    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def over(cls, low: float, high: float) -> InputScale:
        """For inputs known to lie in a range: noise that fills it, as a uniform distribution would."""
        return cls((low + high) / 2, (high - low) / math.sqrt(12), low, high)

    @classmethod
    def of(cls, mean: float, deviation: float) -> InputScale:
        reach = DEVIATIONS * deviation
        return cls(mean, deviation, mean - reach, mean + reach)


STANDARD = InputScale.of(0.0, 1.0)


def generated(forms: Mapping[str, InputForm], scale: InputScale = STANDARD) -> SampleSet:
    """`COUNT` samples, the same at each call. Integers are 0 and 1, which every vocabulary holds."""
    rng = np.random.default_rng(0)
    arrays = {
        name: np.concatenate([_noise(rng, form, scale) for _ in range(COUNT)]) for name, form in forms.items()
    }
    for array in arrays.values():
        if array.dtype.kind == "f":
            # The ends of the range are in the data, so that calibration sees them.
            flat = array.reshape(COUNT, -1)
            flat[0, 0], flat[-1, -1] = scale.low, scale.high
    return replace(load_samples(arrays, tuple(forms)), where=WHERE)


def _noise(rng: np.random.Generator, form: InputForm, scale: InputScale) -> Array:
    dtype = np.dtype(form.dtype)
    if dtype.kind != "f":
        return rng.integers(0, 2, form.shape).astype(dtype)
    white = rng.standard_normal(form.shape)
    values = _natural(white) if len(form.shape) == 4 and min(form.shape[2:]) > 1 else white
    return np.clip(scale.mean + scale.deviation * values, scale.low, scale.high).astype(dtype)


def _natural(white: Array) -> Array:
    """White noise of mean 0 and deviation 1 with an amplitude that falls as 1/frequency over the last two axes."""
    rows, columns = np.fft.fftfreq(white.shape[2]), np.fft.rfftfreq(white.shape[3])
    frequency = np.hypot(rows[:, None], columns)
    frequency[0, 0] = 1 / max(white.shape[2:])
    spectrum = np.fft.rfft2(white) / frequency
    values: Array = np.fft.irfft2(spectrum, white.shape[2:])
    values /= values.std()
    return values


def explained_scale(
    look: Callable[[Mapping[str, Array]], Sequence[SeenNorm]], forms: Mapping[str, InputForm]
) -> InputScale:
    """The scale with which the first batch norm sees what it saw in training; `STANDARD` where that is not told.

    What goes into that norm is taken as linear in the input, as it is after one convolution.
    """
    flat = {value: look({n: np.full(f.shape, value, f.dtype) for n, f in forms.items()}) for value in (0, 1)}
    noise = look(generated(forms).head(1)[0].inputs)
    if not noise:
        return STANDARD
    trained = noise[0].trained
    spread = np.maximum(trained.deviation, 1e-6 * trained.deviation.max() + 1e-12)
    at_zero, at_one = (_channels(flat[value][0].input).mean(1) for value in (0, 1))
    slope, offset = (at_one - at_zero) / spread, (trained.mean - at_zero) / spread
    mean = float(slope @ offset / max(float(slope @ slope), 1e-12))
    per_unit = _channels(noise[0].input).std(1)
    live = (per_unit > 0) & (trained.deviation > 0)
    if not live.any():
        return STANDARD
    deviation = float(np.exp(np.median(np.log(trained.deviation[live] / per_unit[live]))))
    return InputScale.of(mean, deviation)


def _channels(value: Array) -> Array:
    return np.moveaxis(value, 1, 0).reshape(value.shape[1], -1)
