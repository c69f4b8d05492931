"""`edgewright fleet samples`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.errors import ConfigError
from edgewright_cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from edgewright.object_store import ObjectStore

store_option = click.option(
    "--store",
    required=True,
    metavar="URL",
    help="A folder, file:///FOLDER, or s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION.",
)
credentials_option = click.option(
    "--credentials",
    type=click.Path(path_type=Path),
    help="TOML file with access_key and secret_key, chmod 600; without it, AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY.",
)


@click.group(
    epilog="""\b
Examples:
  edgewright fleet samples list --store /mnt/samples
  edgewright fleet samples collect --store 's3://samples?endpoint=https://minio.lan:9000' \\
      --labels labels.csv --output dataset
  edgewright fleet samples export dataset --part evaluation --output recent.npz
  edgewright fleet samples forget --store /mnt/samples --fleet kiosks --device line-3
"""
)
def samples() -> None:
    """Inputs that devices kept for training: see them, label them, freeze them as a data set, erase them."""


@samples.command(
    "list",
    epilog="""\b
Examples:
  edgewright fleet samples list --store /mnt/samples
  edgewright fleet samples list --store /mnt/samples --fleet kiosks --by site
  edgewright fleet samples list --store /mnt/samples --each --json
""",
)
@store_option
@credentials_option
@click.option("--fleet", "fleet_name", help="Only this fleet's.")
@click.option("--device", help="Only this device's.")
@click.option(
    "--by",
    default="profile",
    show_default=True,
    help="What makes a group: device, profile, version, or a label of the devices.",
)
@click.option("--each", is_flag=True, help="A row a sample, with its digest for the file of labels.")
@json_option
def list_(
    store: str,
    credentials: Path | None,
    fleet_name: str | None,
    device: str | None,
    by: str,
    each: bool,
    as_json: bool,
) -> int:
    """Show the samples in a store by group and reason. Exit code 3 where an object is no sample."""
    from edgewright_fleet.retraining.field_data.catalogue import Found, find_samples, summary

    found, unreadable = [], []
    for one in find_samples(_open(store, credentials), fleet=fleet_name, device=device):
        if isinstance(one, Found):
            found.append(one)
        else:
            unreadable.append(one.problem)
    if each:
        documents = [
            {"digest": one.digest, "bytes": one.size, **one.sample.model_dump(mode="json", by_alias=True)}
            for one in found
        ]
        columns: tuple[str, ...] = (
            "digest",
            "device",
            "captured",
            "reason",
            "top",
            "label",
            "confidence",
            "model",
            "version",
        )
        rows = [[_cell(column, document[column]) for column in columns] for document in documents]
    else:
        groups = summary(found, by)
        documents = [
            {
                "group": group.group,
                "reason": group.reason,
                "samples": group.samples,
                "bytes": group.bytes,
                "devices": group.devices,
                "first": group.first.isoformat(),
                "last": group.last.isoformat(),
                "inferences": round(group.inferences, 1),
            }
            for group in groups
        ]
        columns = ("group", "reason", "samples", "bytes", "devices", "first", "last", "inferences")
        rows = [[_cell(column, document[column]) for column in columns] for document in documents]
    if as_json:
        print_json({"samples": documents, "unreadable": unreadable})
    else:
        print_table((by, *columns[1:]) if not each else columns, rows)
    for problem in unreadable:
        click.echo(problem, err=True)
    return 3 if unreadable else 0


@samples.command(
    epilog="""\b
Examples:
  edgewright fleet samples collect --store /mnt/samples --labels labels.csv --output dataset
  edgewright fleet samples collect --store /mnt/samples --labels labels.csv --output dataset \\
      --model oci:registry:net:1.4.0 --profile raspberry-pi-5 --held-out 0.3 --recent-days 7

\b
labels.csv:
  digest,label,labeller,time
  sha256:9b1f…,scratched,anna,2026-11-26
"""
)
@store_option
@credentials_option
@click.option(
    "--labels", required=True, type=click.Path(path_type=Path), help="CSV or JSON lines: digest,label."
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="New folder of the data set.")
@click.option("--fleet", "fleet_name", help="Only this fleet's.")
@click.option("--model", help="A release or artifact whose classes the labels name, or a model's name.")
@click.option("--profile", help="Of that release: the profile whose artifact is meant.")
@click.option(
    "--held-out",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the samples that are never trained on.",
)
@click.option(
    "--recent-days",
    default=14.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Of those, the samples of so many days before now are for evaluation.",
)
@json_option
def collect(
    store: str,
    credentials: Path | None,
    labels: Path,
    output: Path,
    fleet_name: str | None,
    model: str | None,
    profile: str | None,
    held_out: float,
    recent_days: float,
    as_json: bool,
) -> None:
    """Freeze the labelled samples of a model as a data set, whose digest covers every byte and its lineage."""
    from edgewright_fleet.retraining.field_data.collect import collect as collect_samples
    from edgewright_fleet.retraining.field_data.data_set import SplitRule

    name, classes = _classes(model, profile)
    since = datetime.now(timezone.utc) - timedelta(days=min(recent_days, 36_500.0))
    rule = SplitRule(held_out_share=held_out, recent_since=since)
    manifest, digest = collect_samples(
        _open(store, credentials), labels, output, rule, fleet=fleet_name, model=name, names=classes
    )
    if as_json:
        print_json({"digest": digest, **manifest.model_dump(mode="json", by_alias=True)})
        return
    for part, count in sorted(manifest.counts.items()):
        click.echo(f"{part}: {count}")
    for why, count in manifest.skipped.items():
        click.echo(f"left out, {why}: {count}")
    click.echo(f"{output}: {digest}")


@samples.command(epilog="Example: edgewright fleet samples export dataset --part training --output train.npz")
@click.argument("data_set", type=click.Path(path_type=Path))
@click.option(
    "--part",
    required=True,
    type=click.Choice(["training", "evaluation", "held-out"]),
    help="Which of its parts.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The .npz file.")
def export(data_set: Path, part: str, output: Path) -> None:
    """Write a part of a data set as an .npz, as 'convert' takes for --calibration and --evaluation."""
    from edgewright_fleet.retraining.field_data.reading import open_data_set

    count = open_data_set(data_set).write_npz(part, output)  # type: ignore[arg-type]
    click.echo(f"{output}: {count} samples")


@samples.command(
    epilog="Example: edgewright fleet samples forget --store /mnt/samples --fleet kiosks --device line-3"
)
@store_option
@credentials_option
@click.option("--fleet", "fleet_name", required=True, help="Name of the fleet.")
@click.option("--device", required=True, help="Name of the device.")
@click.confirmation_option(prompt="Erase all samples of this device?")
def forget(store: str, credentials: Path | None, fleet_name: str, device: str) -> None:
    """Erase every sample that a device sent to a store.

    Take its table [sampling] away first, else it sends more. Data sets that were collected before keep copies:
    collect them anew. A bucket that keeps versions keeps these until its own rules remove them.
    """
    from edgewright_fleet.retraining.field_data.catalogue import forget as forget_device

    count = forget_device(_open(store, credentials), fleet_name, device)
    click.echo(f"erased {count} objects of {fleet_name}/{device}")


def _open(store: str, credentials: Path | None) -> ObjectStore:
    from edgewright.object_store import open_store

    return open_store(store, credentials_file=credentials)


def _classes(model: str | None, profile: str | None) -> tuple[str | None, Sequence[str] | None]:
    """The name of a model and its classes, where a release or an artifact says so."""
    is_release = model is not None and (model.startswith("oci:") or Path(model).exists())
    if profile is not None and not is_release:
        raise ConfigError("--profile chooses an artifact of a release", remedy="name one with --model")
    if model is None:
        return None, None
    if not is_release:
        if "/" in model or ":" in model:
            raise ConfigError("is neither the name of a model nor a release or artifact", where=model)
        return model, None
    from edgewright.artifact.release import open_all

    found = {
        (one.manifest.name, one.manifest.labels)
        for one in open_all(model)
        if profile in (None, one.manifest.profile)
    }
    if len(found) != 1:
        problem = "holds artifacts whose classes differ" if found else f"holds no artifact for '{profile}'"
        raise ConfigError(problem, where=model, remedy="name one release with --model, or a --profile of it")
    return found.pop()


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    if column in ("captured", "first", "last"):
        at = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        return f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return str(value)
