"""Maintenance windows by the clocks where devices stand, also on days on which those clocks are changed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.contract import from_mapping, to_json
from edgewright_fleet.rollout.maintenance import DAYS, MaintenanceWindow, is_open

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "UTC"]
clocks = st.integers(0, 24 * 60 - 1).map(lambda m: f"{m // 60:02}:{m % 60:02}")
spans = st.tuples(clocks, clocks).filter(lambda span: span[0] != span[1])
windows = st.builds(
    lambda days, span: MaintenanceWindow(days=tuple(sorted(days)), begins=span[0], ends=span[1]),
    st.sets(st.sampled_from(DAYS), min_size=1),
    spans,
)


def window(begins: str, ends: str, *days: str) -> MaintenanceWindow:
    document = {"from": begins, "to": ends} | ({"days": list(days)} if days else {})
    return from_mapping(MaintenanceWindow, document, where="")


def at(zone: str, *when: int, fold: int = 0) -> float:
    return datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).timestamp()  # type: ignore[arg-type,misc]


def test_no_windows_are_always_open_and_an_unknown_zone_never() -> None:
    assert is_open((), "nowhere", 0.0)
    for zone in ("Mars/Olympus", "../etc/passwd", "", "Europe"):
        assert not is_open((window("00:00", "24:00"),), zone, 0.0)


def test_span_past_midnight_belongs_to_the_day_on_which_it_began() -> None:
    night = (window("22:00", "05:00", "fri"),)
    inside = [
        (day, hour)
        for day in (4, 5, 6, 7)  # the 5th of June 2026 is a Friday
        for hour in range(24)
        if is_open(night, "Europe/Berlin", at("Europe/Berlin", 2026, 6, day, hour))
    ]
    assert inside == [(5, 22), (5, 23), *((6, hour) for hour in range(5))]


def test_unquoted_time_of_yaml_is_read_as_it_was_meant() -> None:
    import yaml

    read = from_mapping(MaintenanceWindow, yaml.safe_load("from: 22:30\nto: 05:00"), where="")
    assert (read.begins, read.ends) == ("22:30", "05:00")


def test_hour_that_clocks_skip_does_not_come_and_the_one_they_repeat_comes_twice() -> None:
    two_to_three = (window("02:00", "03:00"),)
    spring, autumn = at("Europe/Berlin", 2026, 3, 29, 0), at("Europe/Berlin", 2026, 10, 25, 0)
    minutes = range(24 * 60)
    assert sum(is_open(two_to_three, "Europe/Berlin", spring + 60 * m) for m in minutes) == 0
    assert sum(is_open(two_to_three, "Europe/Berlin", autumn + 60 * m) for m in minutes) == 120


@settings(deadline=None, max_examples=60)
@given(windows, st.sampled_from(ZONES), st.integers(0, 365 * 5))
def test_week_is_open_for_as_long_as_its_windows_but_for_what_clocks_jump(
    w: MaintenanceWindow, zone: str, day: int
) -> None:
    first, end = (int(c[:2]) * 60 + int(c[3:]) for c in (w.begins, w.ends))
    planned = len(w.days) * ((end - first) % (24 * 60))
    start = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(days=day)
    begin = start.timestamp()
    opened = sum(is_open((w,), zone, begin + 60.0 * minute) for minute in range(7 * 24 * 60))
    offsets = [
        (start + timedelta(days=d)).astimezone(ZoneInfo(zone)).utcoffset() or timedelta() for d in (0, 7)
    ]
    assert abs(opened - planned) <= abs(offsets[1] - offsets[0]).total_seconds() / 60


@given(windows, st.sampled_from(ZONES), st.floats(0, 4e9))
def test_window_is_open_exactly_when_a_clock_on_the_wall_says_so(
    w: MaintenanceWindow, zone: str, now_s: float
) -> None:
    local = datetime.fromtimestamp(now_s, ZoneInfo(zone))
    clock, today, yesterday = f"{local:%H:%M}", DAYS[local.weekday()], DAYS[local.weekday() - 1]
    if w.begins < w.ends:
        expected = today in w.days and w.begins <= clock < w.ends
    else:
        expected = (today in w.days and clock >= w.begins) or (yesterday in w.days and clock < w.ends)
    assert is_open((w,), zone, now_s) == expected


@pytest.mark.parametrize("clock", ["24:00", "00:00", "09:59"])
def test_window_survives_json(clock: str) -> None:
    made = window("12:34", clock, "mon")
    assert MaintenanceWindow.model_validate_json(to_json(made)) == made
