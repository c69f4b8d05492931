"""`edgewright fleet drift`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewright_cli.output import json_option, print_json, print_table
from edgewright_cli.progress import progress

if TYPE_CHECKING:
    from edgewright_fleet.retraining.triggers.groups import GroupDrift
    from edgewright_fleet.retraining.triggers.history import DeviceDrift

BLOCKS = {"auto": None, "sketch": 0.0, "hour": 3600.0, "day": 86400.0}


@click.command(
    epilog="""\b
Examples:
  edgewright fleet drift
  edgewright fleet drift --store hub.sqlite --by release --picture drift.html
  edgewright fleet drift --by cluster --json
  edgewright fleet drift --against oci:registry:net:1.0.0
  edgewright fleet drift --block day
"""
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("edgewright-hub.sqlite"),
    show_default=True,
    help="The store of 'fleet hub', which may be running.",
)
@click.option(
    "--by",
    default="profile",
    show_default=True,
    metavar="NAME",
    help="profile, release, or a device's label.",
)
@click.option(
    "--block",
    type=click.Choice(list(BLOCKS)),
    default="auto",
    show_default=True,
    help="What is looked at as one; auto: sketches, and whole days of devices that flap.",
)
@click.option(
    "--device-years",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Mean time between false alarms of one device, at least.",
)
@click.option(
    "--least-psi",
    default=0.02,
    show_default=True,
    type=click.FloatRange(0),
    help="Least population stability index, less what chance gives, that counts.",
)
@click.option(
    "--against",
    metavar="TARGET",
    help="Hold devices against the data that these artifacts were judged on, not against their own first weeks.",
)
@click.option(
    "--picture", type=click.Path(path_type=Path), help="Write a page with a picture of each group (HTML)."
)
@json_option
def drift(
    store: Path,
    by: str,
    block: str,
    device_years: float,
    least_psi: float,
    against: str | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Show where the data of devices has changed, by group: what they answer, how surely, what they are given.

    Each device is held against its own first weeks on its release. A change is one that chance gives a device
    once in --device-years at most, however often you look, and that is as large as --least-psi. A device whose
    data goes to and fro is looked at by whole days, which takes two weeks of them; if it still does, it flaps, and
    does not drift.
    """
    from edgewright.durable_file import write_durably
    from edgewright_fleet.retraining.triggers.drift_test import DriftTest
    from edgewright_fleet.retraining.triggers.groups import group_drift
    from edgewright_fleet.retraining.triggers.observe import drift_in_store, references
    from edgewright_fleet.retraining.triggers.picture import draw

    test = DriftTest(device_years=device_years, least_psi=least_psi)
    known = references(against) if against is not None else None
    with _told_if_slow() as tell:
        fleet, devices = drift_in_store(store, test, block_s=BLOCKS[block], against=known, progress=tell)
    groups = group_drift(devices, by)
    if picture is not None:
        write_durably(picture, draw(fleet, groups, time.time()).encode())
    if as_json:
        print_json({
            "fleet": fleet,
            "by": by,
            "groups": [group.model_dump(mode="json") | {"share": group.share} for group, _ in groups],
            "devices": [_document(device) for device in devices if device.changes],
        })  # fmt: skip
        return
    columns = (
        "group",
        "model",
        "devices",
        "settled",
        "in drift",
        "share",
        "PSI",
        "Jensen–Shannon",
        "since",
        "what",
    )
    print_table(columns, [_row(group) for group, _ in groups], title=f"Drift of {fleet} by {by}")


@contextlib.contextmanager
def _told_if_slow() -> Iterator[Callable[[int, int], None]]:
    """Progress on standard error, from the second second on and once a second."""
    began = told = time.monotonic()
    with contextlib.ExitStack() as stack:
        show: Callable[[int, int, str, float], None] | None = None

        def tell(done: int, devices: int) -> None:
            nonlocal told, show
            now = time.monotonic()
            if now - told > 1:
                told = now
                show = show or stack.enter_context(progress("following devices"))
                show(done, devices, "following devices", (now - began) / max(done, 1) * (devices - done))

        yield tell


def _row(group: GroupDrift) -> list[str]:
    since = "–" if group.since_s is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(group.since_s))
    return [
        group.group,
        group.model,
        str(group.devices),
        str(group.settled),
        f"{group.drifting}" + (f" (+{group.flapping} flap)" if group.flapping else ""),
        f"{group.share:.0%}",
        "–" if group.psi is None else f"{group.psi:.3f}",
        "–" if group.distance is None else f"{group.distance:.3f}",
        since,
        ", ".join(f"{name} {count}" for name, count in sorted(group.streams.items())) or "–",
    ]


def _document(device: DeviceDrift) -> dict[str, Any]:
    """A device whose data changed, for scripts."""
    return {
        "device": device.device,
        "profile": device.profile,
        "release": device.release,
        "drifting": list(device.drifting),
        "since_s": device.since_s,
        "effects": dict(device.effects),
        "dispersions": dict(device.dispersions),
        "changes": [
            {
                "at_s": c.at_s,
                "seen_s": c.seen_s,
                "stream": c.stream,
                "effect": c.effect,
                "evidence": c.evidence,
            }
            for c in device.changes
        ],
    }
