"""How a command carries out runs of a retraining, and what it says and exits with at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright_cli.output import print_json
from edgewright_cli.progress import progress
from edgewright_cli.rollout_carrying import carried_out
from edgewright_cli.rollout_place import Place

if TYPE_CHECKING:
    from edgewright.mqtt import BrokerSettings
    from edgewright_fleet.retraining.run import Run
    from edgewright_fleet.retraining.spec import RolloutCluster


def check_store(spec: Path) -> None:
    """Whoever names a store wants a rollout of bare devices, which must not become one of a cluster."""
    from edgewright_fleet.retraining.spec import load_spec

    source = click.get_current_context().get_parameter_source("store")
    if source is click.core.ParameterSource.COMMANDLINE and load_spec(spec).promotion.cluster is not None:
        raise click.UsageError(
            "--store is for bare devices, and promotion.cluster has the rollout in a cluster: leave one out"
        )


def look_once(spec: Path, store: Path, broker: str) -> int:
    """Begin what a trigger asks for and carry out what is under way; the greatest exit code of the runs."""
    from edgewright_fleet.retraining.look import begin_run, look, under_way
    from edgewright_fleet.retraining.spec import load_spec
    from edgewright_fleet.retraining.triggers.trigger import Trigger

    wanted = load_spec(spec)
    runs = under_way(wanted)
    if not runs:
        for one in look(wanted, now()):
            if isinstance(one, Trigger):
                click.echo(f"{one.evidence.group}: {one.kind}: {one.says}", err=True)
                runs.append(begin_run(wanted, one, now()))
                break  # one training serves all groups, and each trigger after it is cooling down
            click.echo(f"{one.evidence.group}: no, {'; '.join(one.because)}", err=True)
    command = [sys.executable, "-m", "edgewright_cli.main", "retrain", "resume", "--broker", broker]
    environment = os.environ | {"EDGEWRIGHT_STORE": str(store)}  # for those that a cluster does not roll out
    return max(
        (
            subprocess.run([*command, str(run.folder)], check=False, env=environment).returncode
            for run in runs
        ),
        default=0,
    )


def drive_run(run: Run, store: Path, settings: BrokerSettings, as_json: bool) -> None:
    """Do the stages of a run with progress, say what came of it, and exit as the epilogs say."""
    from edgewright_fleet.retraining.drive import drive
    from edgewright_fleet.retraining.loop import backend_of, described
    from edgewright_fleet.retraining.stages.step import Tools

    def roll_out(path: Path, cluster: RolloutCluster | None) -> tuple[str, str]:
        place = Place(store, **cluster.model_dump()) if cluster else Place(store)
        state = carried_out(path, place, settings, lambda line: click.echo(line, err=True))
        return state.phase, f"{state.phase}: {state.verdict}"

    with progress(run.name) as show:
        standing = drive(run, Tools(backend_of, show, roll_out))
    if as_json:
        print_json(described(run))
    else:
        click.echo(f"{run.name} is {standing}: {run.says}")
    if standing == "held":
        click.echo(f"release it all the same: edgewright retrain promote {run.folder} --why ...", err=True)
    rollout = run.chain.last("rollout")
    phase = rollout.evidence.get("phase") if rollout else None  # None: it was not to be carried out here
    if standing != "done" or phase not in (None, "succeeded"):
        raise click.exceptions.Exit(3)


def now() -> datetime:
    return datetime.now(timezone.utc)
