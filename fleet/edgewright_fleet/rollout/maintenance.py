"""Maintenance windows: when a device may be updated, by the wall clock where it stands.

A window is days and a span of the day, of a clock that people read: where clocks go forward it may be an hour
shorter or not come at all that day, and where they go back an hour longer. A span that ends before it begins goes
on past midnight and belongs to the day on which it began.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from edgewright.contract import CONTRACT

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
_DAY_MINUTES = 24 * 60


def _clock(value: Any) -> Any:
    # YAML 1.1 reads an unquoted 22:30 as the number 22 * 60 + 30.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _DAY_MINUTES:
        return f"{value // 60:02}:{value % 60:02}"
    return value


Clock = Annotated[
    str,
    BeforeValidator(_clock),
    Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", examples=["22:30"]),
]


class MaintenanceWindow(BaseModel):
    """When devices may be updated, by their own clocks."""

    model_config = CONTRACT
    days: Annotated[tuple[Day, ...], Field(min_length=1)] = Field(
        default=DAYS, description="on which it begins"
    )
    begins: Clock = Field(alias="from", description="HH:MM, the first minute in it")
    ends: Clock = Field(
        alias="to", description="HH:MM, the first minute after it; before `from`: on the day after"
    )

    @model_validator(mode="after")
    def _lasts(self) -> MaintenanceWindow:
        if self.begins == self.ends:
            raise ValueError("from and to are the same; for a whole day write 00:00 and 24:00")
        return self

    def holds(self, day: int, minute: int) -> bool:
        """Whether a local day (0 is Monday) and its minute (from 0) lie in it."""
        first, end = _minutes(self.begins), _minutes(self.ends)
        if first < end:
            return DAYS[day] in self.days and first <= minute < end
        return (DAYS[day] in self.days and minute >= first) or (DAYS[day - 1] in self.days and minute < end)


def is_open(windows: Sequence[MaintenanceWindow], zone: str, now_s: float) -> bool:
    """Whether devices of a time zone may be updated at a Unix time; no windows are always open.

    A zone that is not known, such as a misspelt one, is taken as never open: waiting harms nobody.
    """
    if not windows:
        return True
    try:
        local = datetime.fromtimestamp(now_s, zoneinfo.ZoneInfo(zone))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return any(window.holds(local.weekday(), local.hour * 60 + local.minute) for window in windows)


def is_zone(name: str) -> bool:
    """Whether a time zone of this name is known here."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])
