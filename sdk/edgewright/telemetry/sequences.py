"""Which payloads of one boot a receiver has: what is new, what came twice, what is missing.

A device numbers its payloads 0, 1, 2 … in each boot. What was received is kept as ranges, which is one pair
where nothing is missing. Pure, and of bounded size.
"""

from __future__ import annotations

Ranges = tuple[tuple[int, int], ...]
"""(first, last) of what was received: in order, and with a gap between any two."""
MAX_RANGES = 32
"""With more, the oldest gap is closed: what arrives for it later counts as seen, never twice."""


def received(ranges: Ranges, sequence: int) -> Ranges:
    """With one more sequence; the very same ranges where it was there before."""
    if ranges and sequence == ranges[-1][1] + 1:  # the next one, as nearly always
        return (*ranges[:-1], (ranges[-1][0], sequence))
    if any(first <= sequence <= last for first, last in ranges):
        return ranges
    before = [r for r in ranges if r[1] < sequence - 1]
    after = [r for r in ranges if r[0] > sequence + 1]
    touching = ranges[len(before) : len(ranges) - len(after)]
    joined = (min([sequence, *(r[0] for r in touching)]), max([sequence, *(r[1] for r in touching)]))
    result = (*before, joined, *after)
    if len(result) > MAX_RANGES:
        result = ((result[0][0], result[1][1]), *result[2:])
    return result


def missing(ranges: Ranges, payloads: int) -> Ranges:
    """The gaps among the first `payloads` sequences, as `DeviceStatus.payloads` says how many there are."""
    gaps, due = [], 0
    for first, last in ranges:
        if first > due:
            gaps.append((due, min(first, payloads) - 1))
        due = last + 1
        if due >= payloads:
            break
    else:
        gaps.append((due, payloads - 1))
    return tuple(gap for gap in gaps if gap[0] <= gap[1])
