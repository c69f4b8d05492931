"""`Ledger`: what of the budgets is left, and so the probability with which an inference is kept. Pure.

Chance thins samples out before a budget is used up, so that those of the whole day have a known probability of
being in the data set, and estimates from it can be weighted by its inverse (Horvitz and Thompson 1952, "A
Generalization of Sampling Without Replacement From a Finite Universe"). A level is the number of samples that may
be taken now. Taking one costs one, time adds some; where the level is below nought, an inference is kept with
probability exp(level). However fast inputs come, the level then settles where as many are taken as time allows: at
r samples an hour of n that come, at -ln(n/r). The probability depends on the past alone, so that the weights hold.
"""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Literal

from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT

CREDIT_HOURS = 0.25
"""What quiet hours leave for later: hard inputs come in bursts."""
DAY_SHARE = 0.9
"""Of a day's bytes that samples are spread over; the rest is for bursts, before the limit itself ends the day."""


class Ledger(BaseModel):
    """The state of the budgets, as it is kept on the disk."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    hard: float = Field(default=0.0, description="level of hard samples")
    uniform: float = Field(default=0.0, description="level of samples by chance alone")
    as_of_s: float = Field(default=0.0, description="when the levels were these, in seconds since 1970")
    day: str = Field(default="", description="UTC; the day that the bytes are of")
    day_bytes: int = Field(default=0, ge=0)


def later(ledger: Ledger, now_s: float, *, per_hour: float, uniform_share: float) -> Ledger:
    """The ledger at `now_s`. A clock that was set gives an hour's worth at most, and never takes any."""
    hours = min(max(0.0, now_s - ledger.as_of_s), 3600.0) / 3600
    hard = per_hour * (1 - uniform_share)
    today = datetime.fromtimestamp(now_s, timezone.utc).strftime("%Y-%m-%d")
    return ledger.model_copy(
        update={
            "hard": max(ledger.hard, min(ledger.hard + hours * hard, hard * CREDIT_HOURS)),
            # No credit: a uniform sample is one of its time.
            "uniform": max(ledger.uniform, min(ledger.uniform + hours * per_hour * uniform_share, 0.0)),
            "as_of_s": now_s,
            "day": today,
            "day_bytes": 0 if today > ledger.day else ledger.day_bytes,
        }
    )


def per_hour(samples_per_hour: float, bytes_per_day: int, size: int) -> float:
    """Samples of `size` bytes that both budgets allow in an hour."""
    return min(samples_per_hour, DAY_SHARE * bytes_per_day / 24 / max(1, size))


def chances(ledger: Ledger, *, hard: bool, uniform_share: float) -> tuple[float, float]:
    """The probabilities that an inference is kept by chance alone, and that it is kept as a hard one."""
    by_chance = math.exp(min(0.0, ledger.uniform)) if uniform_share > 0 else 0.0
    as_hard = math.exp(min(0.0, ledger.hard)) if hard and uniform_share < 1 else 0.0
    return by_chance, as_hard


def inclusion(by_chance: float, as_hard: float, offered: float) -> float:
    """The probability that an inference is kept for whatever reason, where a share of `offered` is looked at."""
    return offered * (by_chance + as_hard * (1 - by_chance))


def spent(ledger: Ledger, *, uniform: bool, size: int) -> Ledger:
    """The ledger after a sample of `size` bytes."""
    level = {"uniform": ledger.uniform - 1} if uniform else {"hard": ledger.hard - 1}
    return ledger.model_copy(update=level | {"day_bytes": ledger.day_bytes + size})
