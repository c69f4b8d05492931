"""`SamplingConfig`: the table `[sampling]` of `agent.toml`; without it no input ever leaves a device's memory."""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from edgewright.privacy import PrivacyPolicy

Share = Annotated[float, Field(ge=0, le=1)]
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class SamplingConfig(PrivacyPolicy):
    """Which inputs are kept for training, how much of them, and where they go. The policy's keys are its own:
    `store`, `crop`, `downscale`, `drop_labels`. Without a `store`, samples are counted alone."""

    url: Annotated[str, Field(min_length=1)] | None = None
    """Where samples go: a folder, `file:///FOLDER`, or `s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION`.
    None: they stay in the state folder."""
    credentials_file: Path | None = None
    """Of a bucket: TOML with `access_key` and `secret_key`. None: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""
    confidence_below: Share = 0.6
    """An input is hard where the top class's probability is below; 0 turns it off. 0.6: most are above."""
    margin_below: Share = 0.2
    """And where it is closer than this to the next class's; 0 turns it off."""
    drifted_above: Annotated[float, Field(gt=0)] | None = 4.0
    """And where a channel's level or spread is so many standard deviations from those of the conversion's data.
    None turns it off. 4: one in 16,000 of what is normally distributed."""
    uniform_share: Share = 0.1
    """Share of the samples that are chosen by chance alone, so that the data set is not of hard ones only."""
    samples_per_hour: Annotated[float, Field(gt=0, le=100_000)] = 20.0
    """On average; after quiet hours up to a quarter of an hour's more at once, and some ten where inputs come
    fast. 20: what a person labels in minutes a day."""
    bytes_per_day: Annotated[int, Field(gt=0, le=1 << 50)] = 50 << 20
    """Never more are written in a day (UTC). 50 MiB: 330 inputs of 224 × 224 × 3 bytes."""
    bytes_on_disk: Annotated[int, Field(gt=0, le=1 << 50)] = 100 << 20
    """Never more wait on the disk; then nothing new is kept. 100 MiB: two days at the default."""
    upload_bytes_per_s: Annotated[int, Field(ge=1024)] | None = None
    """None: as fast as the link is."""
    upload_between: str | None = None
    """Hours of the device's day in which samples are sent, such as `22:00-05:00`. None: at any time."""

    @field_validator("upload_between")
    @classmethod
    def _is_a_span(cls, text: str | None) -> str | None:
        if text is not None and not _HOURS.fullmatch(text):
            raise ValueError("is no span of the day, such as 22:00-05:00")
        return text

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> SamplingConfig:
        if self.credentials_file is not None and not (self.url or "").startswith("s3:"):
            raise ValueError("credentials_file needs the url of a bucket")
        if self.store == "nothing" and self.model_fields_set & {"url", "crop", "downscale"}:
            raise ValueError('needs store = "input" or "digest", as nothing is stored without')
        return self

    @property
    def policy(self) -> PrivacyPolicy:
        """What a sample tells of it."""
        return PrivacyPolicy(
            store=self.store, crop=self.crop, downscale=self.downscale, drop_labels=self.drop_labels
        )

    def may_send(self, now: time) -> bool:
        """Whether `now`, by the device's clock, is in the hours of uploads."""
        found = _HOURS.fullmatch(self.upload_between or "")
        if found is None:
            return True
        begin, end = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
        return begin <= now < end if begin < end else now >= begin or now < end
