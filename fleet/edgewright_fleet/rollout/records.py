"""`DeviceRecord` and `Devices`: what a rollout knows of each device, as a persistent map with an index by stand.

A state never changes: one device's news gives a new map that shares all but a few nodes with the old one (a hash
array mapped trie, `immutables`), so that an event costs the same with 10 devices and with 10,000. Which devices
stand where, and whose news nobody has judged or stored yet, is kept along: no step looks at all devices.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal, get_args

from immutables import Map
from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT
from edgewright.twin import ReleaseReference
from edgewright_fleet.rollout.measured import Measured, Verdict

Stand = Literal["waiting", "asked", "censored", "committed", "failed", "reverting", "reverted", "stranded"]
"""Where a device is in a rollout.

`waiting`: not told anything. `asked`: told to run the release. `censored`: asked, and offline since before it
could answer in time. `committed`: runs the release. `failed`: refused it or left it. `reverting`: told to run
what it ran before. `reverted`: said that it does. `stranded`: cannot go back (it ran nothing before, or said
that it failed to).
"""
ON_TRIAL: tuple[Stand, ...] = ("asked", "censored", "committed")
"""Where a device's measurements of the release count."""
_NOTHING = Measured()


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """One device in one rollout."""

    __pydantic_config__: ClassVar[ConfigDict] = CONTRACT
    profile: str
    online: bool = False
    boot: Annotated[str | None, Field(description="of the newest report or status")] = None
    past_boots: Annotated[tuple[str, ...], Field(description="whose late messages no longer count")] = ()
    sequence: Annotated[int, Field(description="of the newest report of this boot")] = -1
    time_zone: Annotated[str | None, Field(description="that it reported")] = None
    deferred_until_s: Annotated[float | None, Field(description="that it asked for last, Unix seconds")] = (
        None
    )
    deferrals: Annotated[int, Field(description="how often it asked for a later time")] = 0
    stand: Stand = "waiting"
    wave: Annotated[int | None, Field(description="in which it was asked")] = None
    asked_s: Annotated[float | None, Field(description="when it was asked, Unix seconds")] = None
    before: Annotated[ReleaseReference | None, Field(description="what it ran when it was asked")] = None
    running: ReleaseReference | None = None
    baseline: Measured = field(default_factory=lambda: _NOTHING)
    after: Measured = field(default_factory=lambda: _NOTHING)
    control: Annotated[
        Measured | None, Field(description="since the wave began, of one that waits and is a control")
    ] = None
    verdict: Annotated[Verdict | None, Field(description="of the gates; None: not judged yet")] = None
    reason: str | None = None


_NAMES = tuple(one.name for one in fields(DeviceRecord))
_VALUES = attrgetter(*_NAMES)
MEASUREMENTS = ("baseline", "after", "control")
"""The fields that hold sums of telemetry."""
_KEPT = attrgetter(*(name for name in _NAMES if name not in ("sequence", "verdict", *MEASUREMENTS)))
"""What else is to be stored when it changes: whoever goes on after a crash is told the newest report of each
device again, and judges anew."""


class _Draft:
    """A record that is being made: of the same slots, and not frozen yet."""

    __slots__ = _NAMES


def changed(record: DeviceRecord, **changes: Any) -> DeviceRecord:
    """What `dataclasses.replace` gives, at an eighth of its cost: every message of every device asks for it."""
    made: Any = _Draft()
    (
        made.profile, made.online, made.boot, made.past_boots, made.sequence, made.time_zone,
        made.deferred_until_s, made.deferrals, made.stand, made.wave, made.asked_s, made.before, made.running,
        made.baseline, made.after, made.control, made.verdict, made.reason,
    ) = _VALUES(record)  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    made.__class__ = DeviceRecord
    return made  # type: ignore[no-any-return]


@lru_cache(256)
def shared(release: ReleaseReference) -> ReleaseReference:
    """One object for equal releases, in place of one of 1 kB a device."""
    return release


def sharing(record: DeviceRecord) -> DeviceRecord:
    """The same, with what many records hold as one object for all of them."""
    return changed(
        record,
        profile=sys.intern(record.profile),
        boot=record.boot and sys.intern(record.boot),
        before=record.before and shared(record.before),
        running=record.running and shared(record.running),
    )


RECORD: TypeAdapter[DeviceRecord] = TypeAdapter(DeviceRecord)
Names = Map[str, None]
_NONE: Names = Map()


class Devices(Mapping[str, DeviceRecord]):
    """Records by device name; immutable, and equal where the records are."""

    __slots__ = ("_records", "_stands", "past_a_limit", "undecided", "unjudged", "unsaved", "unsaved_sums")

    def __init__(
        self,
        records: Map[str, DeviceRecord],
        stands: dict[Stand, Names],
        undecided: Names,
        unjudged: Names,
        unsaved: Names,
        past_a_limit: Names,
        unsaved_sums: Map[tuple[str, str], None],
    ) -> None:
        self._records, self._stands, self.past_a_limit = records, stands, past_a_limit
        """The last: those on trial that failed their gate."""
        self.undecided, self.unjudged, self.unsaved = undecided, unjudged, unsaved
        """Those on trial that did not pass; those on trial with news since a judgement; those to be stored."""
        self.unsaved_sums = unsaved_sums
        """(Name, field) of what devices measured, to be stored."""

    @classmethod
    def of(cls, records: Mapping[str, DeviceRecord]) -> Devices:
        """A map of these records, none of them judged or stored."""
        stands: dict[Stand, Names] = {
            stand: Map((name, None) for name, record in records.items() if record.stand == stand)
            for stand in get_args(Stand)
        }
        trial = [name for name, record in records.items() if record.stand in ON_TRIAL]
        undecided: Names = Map((name, None) for name in trial if records[name].verdict != "pass")
        return cls(
            Map(records),
            stands,
            undecided,
            Map((name, None) for name in trial),
            Map((name, None) for name in records),
            Map((name, None) for name in trial if records[name].verdict == "fail"),
            Map(
                ((name, sum_of), None)
                for name, record in records.items()
                for sum_of in MEASUREMENTS
                if getattr(record, sum_of) not in (None, _NOTHING)
            ),
        )

    def __getitem__(self, name: str) -> DeviceRecord:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def get(self, name: str, default: Any = None) -> Any:
        """The record, or `default`; in C, as every message of any device asks."""
        return self._records.get(name, default)

    def with_record(self, name: str, record: DeviceRecord) -> Devices:
        """With one device's record replaced."""
        return self.with_records({name: record})

    def with_records(self, records: Mapping[str, DeviceRecord]) -> Devices:
        """With the records of some devices replaced, which costs less than one after the other."""
        stands, undecided, unjudged, past = self._stands, self.undecided, self.unjudged, self.past_a_limit
        unsaved, sums = dict[str, None](), dict[tuple[str, str], None]()
        for name, record in records.items():
            old = self._records[name]
            if _KEPT(record) != _KEPT(old):
                unsaved[name] = None
            elif record.verdict == old.verdict and _same_sums(record, old):
                continue
            if record.after is not old.after:
                sums[name, "after"] = None
            if record.control is not old.control:
                sums[name, "control"] = None
            needed, was_needed = _needs_baseline(record), _needs_baseline(old)
            if (needed or was_needed) and (record.baseline is not old.baseline or needed != was_needed):
                sums[name, "baseline"] = None
            if record.stand != old.stand:
                name = sys.intern(name)
                stands = {
                    **stands,
                    old.stand: stands[old.stand].delete(name),
                    record.stand: stands[record.stand].set(name, None),
                }
            if record.stand in ON_TRIAL:
                if record.verdict == "pass":
                    undecided = _without(undecided, name)
                elif name not in undecided:
                    undecided = undecided.set(name, None)
                # Who has measured nothing of the release is judged with its first window.
                if record.after is not old.after or (record.stand != old.stand and record.after.seen):
                    unjudged = unjudged.set(name, None)
            elif old.stand in ON_TRIAL:
                undecided, unjudged = _without(undecided, name), _without(unjudged, name)
            if record.stand in ON_TRIAL and record.verdict == "fail":
                past = past.set(name, None)
            elif past:
                past = _without(past, name)
        return Devices(
            self._records.update(records),
            stands,
            undecided,
            unjudged,
            self.unsaved.update(unsaved),
            past,
            self.unsaved_sums.update(sums),
        )

    def judged(self) -> Devices:
        """The same, with nobody's news waiting for a judgement."""
        return Devices(
            self._records,
            self._stands,
            self.undecided,
            _NONE,
            self.unsaved,
            self.past_a_limit,
            self.unsaved_sums,
        )

    def saved(self) -> Devices:
        """The same, with nothing to be stored."""
        return Devices(
            self._records, self._stands, self.undecided, self.unjudged, _NONE, self.past_a_limit, Map()
        )

    def count(self, *stands: Stand) -> int:
        """How many stand in one of `stands`."""
        return sum(len(self._stands[stand]) for stand in stands)

    def at(self, stand: Stand) -> Names:
        """The names of those that stand there, in no order."""
        return self._stands[stand]

    def stands(self) -> dict[Stand, int]:
        """How many stand where."""
        return {stand: len(names) for stand, names in self._stands.items()}

    def standing(self, *stands: Stand) -> list[str]:
        """The names of those that stand in one of `stands`, in order."""
        return sorted(name for stand in stands for name in self._stands[stand])

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def made(value: Any) -> Devices:
            return value if isinstance(value, Devices) else Devices.of(value)

        plain = core_schema.no_info_after_validator_function(made, handler(dict[Name, DeviceRecord]))
        return core_schema.json_or_python_schema(
            json_schema=plain,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), plain]),
            serialization=core_schema.wrap_serializer_function_ser_schema(
                lambda devices, inner: inner({name: devices[name] for name in sorted(devices)}),
                schema=handler(dict[Name, DeviceRecord]),
            ),
        )


def _same_sums(record: DeviceRecord, old: DeviceRecord) -> bool:
    return record.after is old.after and record.control is old.control and record.baseline is old.baseline


def _needs_baseline(record: DeviceRecord) -> bool:
    """Whether its baseline must outlive a crash: one that waits can be measured again."""
    return record.stand != "waiting" or record.control is not None


def _without(names: Names, name: str) -> Names:
    return names.delete(name) if name in names else names
