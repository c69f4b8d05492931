"""`Detector`: follows the blocks of many devices at once, and says where the data of one has changed.

All devices take a step together; one that has no block then is left as it is. `drift_test.py` says what the test
is and what its false alarms are. After an alarm a device's reference is what came since the change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewright_fleet.retraining.triggers.drift_test import DriftTest, StreamName
from edgewright_fleet.retraining.triggers.evidence import Array, Evidence

LOOK_BACK = 256
"""Blocks: a change that was not certain after so many (a day) is followed no further. It is less than 1 % of the
answers, then."""


@dataclass(frozen=True)
class Alarm:
    """A device's data has changed."""

    device: int
    step: int
    """When it was seen, counted from nought."""
    start: int
    """The first step after the change, as far as can be told."""
    stream: StreamName
    evidence: float
    """Log of the sum of likelihood ratios."""
    effect: float


class _Followed:
    """One stream of all devices."""

    def __init__(self, evidence: Evidence, devices: int, width: int) -> None:
        self.evidence = evidence
        self.total = np.zeros((devices, width))
        self.last = np.zeros((devices, width))
        self.before = np.zeros((devices, 0, width))
        self.prior = evidence.prior(self.before)
        self.squares = np.zeros((devices, evidence.dispersions))
        self.freedom = np.zeros((devices, evidence.dispersions))
        self.log_sum = np.full(devices, -np.inf)

    def dispersion(self) -> Array:
        """The design effect given the blocks so far, at least 1; a bound that is too low one time in five."""
        nu = np.maximum(self.freedom, 1.0)
        # Wilson and Hilferty 1931: the 20 % quantile of chi-squared over its degrees of freedom. A safer one costs
        # days in which small changes go unseen; after a day the estimate is good to 3 %, and this matters no more.
        low = np.maximum(1 - 2 / (9 * nu) - 0.842 * np.sqrt(2 / (9 * nu)), 0.05) ** 3
        return np.asarray(np.maximum(self.squares / nu / low, 1.0))


class Detector:
    """Of devices that answer alike: the same streams of the same widths."""

    def __init__(
        self,
        test: DriftTest,
        devices: int,
        streams: Mapping[StreamName, Evidence],
        widths: Mapping[StreamName, int],
    ) -> None:
        self._test = test
        self.streams = {
            name: _Followed(evidence, devices, widths[name])
            for name, evidence in streams.items()
            if name in test.weights
        }
        self.blocks = np.zeros(devices, np.int64)
        """Since the last alarm."""
        self._seen = np.zeros(devices, np.int64)
        self._referenced = np.zeros(devices, bool)
        self._step = -1
        self._starts: list[int] = []
        self._before_blocks = np.zeros((devices, 0), np.int64)
        self._valid = np.zeros((devices, 0), bool)

    def advance(self, rows: Mapping[StreamName, Array], present: NDArray[np.bool_]) -> list[Alarm]:
        """One more block of each device that is `present`; the rows of others are nought."""
        self._step += 1
        self._begin(present)
        alarms: dict[int, Alarm] = {}
        for name, stream in self.streams.items():
            stream.total = stream.total + rows[name]
            for alarm in self._look(name, stream, present):
                if alarm.device not in alarms or alarm.evidence > alarms[alarm.device].evidence:
                    alarms[alarm.device] = alarm
        for name, stream in self.streams.items():
            squares, freedom = stream.evidence.differences(stream.last, rows[name])
            quiet = present.copy()
            quiet[list(alarms)] = False  # across a change blocks differ for another reason
            stream.squares += np.where(quiet[:, None], squares, 0.0)
            stream.freedom += np.where(quiet[:, None], freedom, 0.0)
            stream.last = np.where(present[:, None], rows[name], stream.last)
        self.blocks += present
        self._seen += present
        for alarm in alarms.values():
            self._restart(alarm)
        return list(alarms.values())

    def set_reference(self, rows: Mapping[StreamName, Array]) -> None:
        """What the data looked like before the first block; to be called before the first step.

        The dispersion of that is not known, so that nothing is said before the blocks have shown theirs.
        """
        self._referenced[:] = True
        for name, row in rows.items():
            if name in self.streams:
                self.streams[name].total += row

    def _begin(self, present: NDArray[np.bool_]) -> None:
        """Follow the change that may come with this block, and fewer of those that may have come before."""
        kept = [i for i, start in enumerate(self._starts) if _followed(start, self._step - start)]
        self._starts = [self._starts[i] for i in kept] + [self._step]
        valid = present & ((self.blocks >= self._test.settle_blocks) | self._referenced)
        self._valid = np.concatenate([self._valid[:, kept], valid[:, None]], axis=1)
        self._before_blocks = np.concatenate([self._before_blocks[:, kept], self.blocks[:, None]], axis=1)
        for stream in self.streams.values():
            start = stream.total[:, None]
            stream.before = np.concatenate([stream.before[:, kept], start], axis=1)
            stream.prior = np.concatenate([stream.prior[:, kept], stream.evidence.prior(start)], axis=1)

    def _look(self, name: StreamName, stream: _Followed, present: NDArray[np.bool_]) -> Sequence[Alarm]:
        dispersion = stream.dispersion()
        settled = self._seen >= self._test.settle_blocks
        rows = np.flatnonzero(present & settled & self._valid.any(axis=1))
        if not rows.size:
            return []
        every = rows.size == len(present)
        before, total, prior, valid = (stream.before, stream.total, stream.prior, self._valid)
        if not every:
            before, total, prior, valid = before[rows], total[rows], prior[rows], valid[rows]
        scale = dispersion[rows][:, None]
        ratios = np.where(valid, stream.evidence.log_ratio(before, total[:, None], scale, prior), -np.inf)
        top = ratios.max(axis=1)
        stream.log_sum[rows] = top + np.log(np.exp(ratios - top[:, None]).sum(axis=1))
        threshold = self._test.threshold(name)
        found = []
        for at in np.flatnonzero(stream.log_sum[rows] >= threshold):
            after = np.maximum(total[at] - before[at], 0.0)
            effects = stream.evidence.effect(before[at], after, scale[at])
            # A small change of long ago, as certain as it may be, must not hide a great one since.
            large = np.where(effects >= stream.evidence.least, ratios[at], -np.inf)
            best = int(large.argmax())
            if large[best] >= threshold - np.log(len(large)):
                device = int(rows[at])
                found.append(
                    Alarm(
                        device,
                        self._step,
                        self._starts[best],
                        name,
                        float(stream.log_sum[device]),
                        float(effects[best]),
                    )
                )
        return found

    def _restart(self, alarm: Alarm) -> None:
        device, column = alarm.device, self._starts.index(alarm.start)
        self.blocks[device] -= self._before_blocks[device, column]
        self._valid[device] = self._referenced[device] = False
        for stream in self.streams.values():
            stream.total[device] -= stream.before[device, column]
            stream.log_sum[device] = -np.inf


def _followed(start: int, age: int) -> bool:
    """Whether a start of that age is: all of the newest eight, then four for each doubling of the age."""
    level = max((age // 4).bit_length() - 1, 0)
    return age < LOOK_BACK and start % (1 << level) == 0
