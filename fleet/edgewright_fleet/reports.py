"""`read_report`: what a device reports, at two thirds of what it costs to validate each report.

In an update a whole fleet reports the same but for the device, its boot and the number of the report. So the rest
is validated once and kept, and these three are put in. Only a report as the agent writes it is read that way; for
any other, and for what is wrong with one, `from_json` has the word (a property test holds the two together).
"""

from __future__ import annotations

import re
from functools import lru_cache

from edgewright.contract import from_json
from edgewright.errors import DataError
from edgewright.twin import ReportedState

KEPT = 256
"""Kept at once: every phase of an update, from and to a few releases."""
_PLAIN = re.compile(
    rb'\{"boot":"([ !#-\[\]-~]*)","device":"([A-Za-z0-9][A-Za-z0-9._-]{0,127})"'
    rb'(,.*"sequence":)(0|[1-9][0-9]{0,9})([,}].*)',
    re.DOTALL,
)
"""Keys in order, no white space (`to_json`), and nothing escaped in the texts that are taken out."""
_BOOT, _DEVICE, _SEQUENCE = "boot-of-nobody", "device-of-nobody", 7_777_777


def read_report(payload: bytes) -> ReportedState:
    """A report as a device sent it. Raises `DataError`."""
    found = _PLAIN.fullmatch(payload)
    if found is not None:
        boot, device, before, sequence, after = found.groups()
        if (said := _said(before, after)) is not None:
            own = {"boot": boot.decode(), "device": device.decode(), "sequence": int(sequence)}
            return said.model_copy(update=own)
    return from_json(ReportedState, payload, where="", error=DataError)


@lru_cache(KEPT)
def _said(before: bytes, after: bytes) -> ReportedState | None:
    """What a report says around its own boot, device and sequence; None where it says one of them again."""
    text = f'{{"boot":"{_BOOT}","device":"{_DEVICE}"'.encode() + before + str(_SEQUENCE).encode() + after
    report = from_json(ReportedState, text, where="", error=DataError)
    own = (report.boot, report.device, report.sequence) == (_BOOT, _DEVICE, _SEQUENCE)
    return report if own else None
