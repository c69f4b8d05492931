"""The recent part of a data set as the samples on which a candidate is compared with the model that serves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgewright_fleet.retraining.field_data.data_set import DataSetEntry
from edgewright_fleet.retraining.field_data.reading import DataSet
from edgewright_fleet.retraining.promotion.samples import LabelledSample


@dataclass(frozen=True)
class RecentSamples:
    """Iterates anew each time, a sample in memory at once."""

    data_set: DataSet

    def __iter__(self) -> Iterator[LabelledSample]:
        for sample in self.data_set.read("evaluation"):
            inputs = {name: array[None] for name, array in sample.inputs.items()}
            entry = sample.entry
            yield LabelledSample(inputs, sample.label, _groups(entry), entry.inclusion_probability)


def _groups(entry: DataSetEntry) -> dict[str, str]:
    """Labels of the device, and what every device has; its name is no group, as there are thousands."""
    return entry.device_labels | {"profile": entry.profile, "reason": entry.reason}
