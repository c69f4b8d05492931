"""`TrainingData`: which training samples are learnt from, and which judge what was learnt.

No sample does both, however often it is in the data, and none that steers the ladder is learnt from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgewright.errors import DataError
from edgewright_converters.calibration import Sample, SampleSet

JUDGED = 512
"""Most samples that judge: a change by 2 points of accuracy is told from none on so many."""
SHARE = 4
LEAST = 64
"""Fewer samples teach nothing that the repairs of the ladder do not."""


@dataclass(frozen=True)
class TrainingData:
    """Samples by their indices in `samples`."""

    samples: SampleSet
    learnt: frozenset[int]
    judging: frozenset[int]

    def judges(self) -> Iterable[Sample]:
        """The samples that judge, read one after another."""
        return (sample for index, sample in enumerate(self.samples) if index in self.judging)


def share_out(
    samples: SampleSet, steering: Iterable[Sample] = (), evaluation: SampleSet | None = None
) -> TrainingData:
    """Keep a quarter for judging, `JUDGED` at most, the same at each call; nothing of `steering` is used.

    Raises `DataError` where samples of `evaluation` are in it, or where there are too few.
    """
    keys = [_key(sample) for sample in samples]
    if evaluation is not None:
        shared = len(set(keys) & {_key(sample) for sample in evaluation})
        if shared:
            raise DataError(
                f"holds {shared} of the evaluation samples, whose accuracy would then prove nothing",
                where=samples.where,
                remedy="take them out of the training data",
            )
    left = set(keys) - {_key(sample) for sample in steering}
    if len(left) < LEAST:
        raise DataError(
            f"holds {len(left)} different samples beside those calibrated on; training takes {LEAST} at least",
            where=samples.where,
        )
    alone = sorted(left)
    order = np.random.default_rng(0).permutation(len(alone))
    judging = {alone[i] for i in order[: min(JUDGED, len(alone) // SHARE)]}
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    return TrainingData(
        samples,
        frozenset(i for i, key in enumerate(keys) if key in left and key not in judging),
        frozenset(first[key] for key in judging),
    )


def _key(sample: Sample) -> bytes:
    """Of the inputs alone: a sample with two labels is one sample."""
    hasher = hashlib.blake2b(digest_size=16)
    for name, array in sample.inputs.items():
        hasher.update(f"{name}:{array.dtype}:{array.shape}".encode())
        hasher.update(array.data)
    return hasher.digest()
