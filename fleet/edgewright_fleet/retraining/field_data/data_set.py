"""`DataSet`: a frozen set of labelled samples, a folder whose manifest's digest covers every byte of it.

`manifest.json` says what it is and holds the digest of `entries.jsonl`, which has a line for each sample with its
digest, lineage and label; the samples lie beside it by their digests. So a data set of any size is read line by
line, and two that are equal have one digest.

Parts: a sample whose tensors' digest falls in the share that is held out is never trained on, in this data set
or a later one. Of those, the recent ones are for evaluation. Equal tensors are on the same side.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field

from edgewright.artifact.manifest import Digest, Name
from edgewright.contract import CONTRACT
from edgewright.field_sample import Reason

Part = Literal["training", "evaluation", "held-out"]
MANIFEST, ENTRIES, SAMPLES = "manifest.json", "entries.jsonl", "samples"


class SplitRule(BaseModel):
    """How samples are shared out."""

    model_config = CONTRACT
    held_out_share: float = Field(ge=0, le=1, description="of the samples, never trained on")
    recent_since: AwareDatetime = Field(description="samples held out are for evaluation from then on")


class DataSetEntry(BaseModel):
    """One sample of a data set."""

    model_config = CONTRACT
    digest: Digest
    payload_digest: Digest
    bytes: int = Field(gt=0)
    part: Part
    label: int = Field(ge=0, description="index of the class")
    labeller: str | None = None
    labelled: str | None = Field(default=None, description="when")
    fleet: Name
    device: Name
    device_labels: dict[Name, Name] = Field(default_factory=dict)
    profile: str
    version: Name = Field(description="of the model that met it")
    release: Digest
    captured: AwareDatetime
    reason: Reason
    inclusion_probability: float = Field(gt=0, le=1)
    policy: Digest = Field(description="of the privacy policy that it was kept by")


class InputShape(BaseModel):
    """An input of the source model."""

    model_config = CONTRACT
    name: str
    shape: tuple[int, ...]


class DataSetManifest(BaseModel):
    """What a data set is."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    model: Name
    classes: tuple[str, ...] | None = Field(default=None, description="names, where they are known")
    class_count: int = Field(gt=1)
    inputs: tuple[InputShape, ...] = Field(min_length=1)
    split: SplitRule
    counts: dict[Part, int]
    reasons: dict[Reason, int]
    releases: tuple[Digest, ...] = Field(description="that met the samples")
    labels_digest: Digest = Field(description="of the file of labels")
    entries_digest: Digest = Field(description="of entries.jsonl, which holds the digest of each sample")
    skipped: dict[str, int] = Field(default_factory=dict, description="samples of the store left out, by why")


def part_of(payload_digest: str, captured: datetime, rule: SplitRule) -> Part:
    """The part that a sample belongs to, by its tensors alone but for how recent it is."""
    # The first 52 bits as a number from 0 to 1, which a double holds exactly.
    place = int(payload_digest.removeprefix("sha256:")[:13], 16) / 16**13
    if place >= rule.held_out_share:
        return "training"
    return "evaluation" if captured >= rule.recent_since else "held-out"
