"""`ModelCard`: what a release was made of, how it was judged, and what it is for.

It travels in the release, as a manifest of its own beside the artifacts, so that the release's digest covers it
and a device, which pulls the artifact of its profile, never fetches it. Releases without a card are whole.
Source: Mitchell et al. 2019, "Model Cards for Model Reporting", for what belongs on one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue

from edgewright.artifact.comparison import Comparison, ReleaseId
from edgewright.artifact.layout import MANIFEST_TYPE, Descriptor, ImageManifest, Layout
from edgewright.artifact.manifest import Digest, GateReport, ModelFormat, Name
from edgewright.artifact.release import CARD_TYPE, FILE_PATH, Release, publish
from edgewright.contract import CONTRACT, from_json, to_json
from edgewright.errors import ArtifactError

DOC_TYPE = "application/vnd.cncf.model.doc.v1.raw"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
Count = Annotated[int, Field(ge=0)]


class DataSummary(BaseModel):
    """One data set that the model was made with or judged by."""

    model_config = CONTRACT
    used_for: str = Field(min_length=1, description="training, calibration, held-out evaluation, field …")
    digest: Digest | None = Field(
        default=None, description="of its manifest or of its content; None: unknown"
    )
    samples: Count | None = Field(default=None, description="None: unknown")
    labelled: Count | None = Field(default=None, description="None: unknown")
    first_at: datetime | None = Field(default=None, description="when its first sample was taken")
    last_at: datetime | None = None
    lineage: str = Field(default="", description="where it comes from, in words")
    privacy: str = Field(default="", description="what was done to it for privacy, in words")


class Training(BaseModel):
    """How the weights came to be: enough to run it again."""

    model_config = CONTRACT
    function: str = Field(description="module:function")
    code_digest: Digest | None = Field(default=None, description="of the folder that holds the module")
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    seed: Count
    ranks: Annotated[int, Field(gt=0)] = 1
    weights_digest: Digest | None = Field(default=None, description="of the weights that training ended with")
    tools: dict[str, str] = Field(default_factory=dict, description="package name to version")


class Lineage(BaseModel):
    """What it was made from."""

    model_config = CONTRACT
    base: ReleaseId | None = Field(default=None, description="the release that served; None: the first")
    trigger: str = Field(default="", description="why it was trained, in words")
    chain_head: Digest | None = Field(
        default=None, description="of the last link of the retraining's record, which stands for all of them"
    )
    training: Training | None = None


class ArtifactOnCard(BaseModel):
    """One artifact of the release with the gate's word on it."""

    model_config = CONTRACT
    profile: Name
    format: ModelFormat
    digest: Digest
    model_bytes: int = Field(gt=0)
    gate: GateReport | None = Field(default=None, description="None: made before there was a gate")


class Decision(BaseModel):
    """Who let the release out."""

    model_config = CONTRACT
    by: Literal["comparison", "hand"]
    who: str = Field(default="", description="the person, where it was one")
    why: str = Field(min_length=1)


class ModelCard(BaseModel):
    """The card of one release."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Name
    version: Name
    made_at: datetime
    intended_use: str = Field(default="", description="in its owner's words")
    limits: str = Field(default="", description="where it should not be used, in its owner's words")
    data: tuple[DataSummary, ...] = ()
    lineage: Lineage = Lineage()
    artifacts: tuple[ArtifactOnCard, ...] = Field(min_length=1)
    comparison: Comparison | None = Field(default=None, description="None: nothing served before")
    decision: Decision


def publish_with_card(layout: Layout, card: ModelCard, artifacts: tuple[Descriptor, ...]) -> Release:
    """Name a release over stored artifacts and its card. Raises `ArtifactError`, `StorageError`."""
    if [artifact.digest for artifact in card.artifacts] != [artifact.digest for artifact in artifacts]:
        raise ArtifactError(
            "the card's artifacts are not those of the release", where=f"{card.name}:{card.version}"
        )
    layer = layout.put(to_json(card), DOC_TYPE, {FILE_PATH: "model-card.json"})
    image = ImageManifest(
        schemaVersion=2,
        mediaType="application/vnd.oci.image.manifest.v1+json",
        artifactType=CARD_TYPE,
        config=layout.put(b"{}", EMPTY_TYPE),
        layers=(layer,),
    )
    described = layout.put(to_json(image), MANIFEST_TYPE).model_copy(update={"artifact_type": CARD_TYPE})
    return publish(layout, card.name, card.version, (*artifacts, described))


def read_card(release: Release) -> ModelCard | None:
    """The card of a release, every byte verified; None where it has none. Raises `ArtifactError`."""
    if release.card is None:
        return None
    layout, where = release.layout, str(release.layout.path_of(release.card.digest))
    image = from_json(ImageManifest, layout.read(release.card), where=where, error=ArtifactError)
    if image.artifact_type != CARD_TYPE or [layer.media_type for layer in image.layers] != [DOC_TYPE]:
        raise ArtifactError("is not a model card", where=where)
    layout.read(image.config)
    (layer,) = image.layers
    path = str(layout.path_of(layer.digest))
    card = from_json(ModelCard, layout.read(layer), where=path, error=ArtifactError)
    of, held = [a.digest for a in card.artifacts], [a.digest for a in release.artifacts.values()]
    if sorted(of) != sorted(held):
        raise ArtifactError(
            f"is the card of another release than {release.name}:{release.version}", where=path
        )
    return card
