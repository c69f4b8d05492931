"""`edgewright retrain`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.errors import EdgewrightError
from edgewright_cli.broker import broker_option, broker_settings
from edgewright_cli.output import json_option, print_json, print_table
from edgewright_cli.retrain_carrying import check_store, drive_run, look_once, now
from edgewright_cli.rollout_carrying import store_option, why_option

if TYPE_CHECKING:
    from edgewright_fleet.retraining.run import Run

runs_option = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    envvar="EDGEWRIGHT_RUNS",
    help="Folder of the runs, as the specification says.",
)
spec_argument = click.argument("spec", type=click.Path(path_type=Path))
EXIT_CODES = (
    "Exit codes: 0 released (or ready to be), 3 held, stopped, or its rollout did not succeed, 2 bad input."
)


@click.group(
    epilog="""\b
Examples:
  edgewright retrain check kiosks.yaml             # would a trigger fire?
  edgewright retrain submit kiosks.yaml --why "new labels"
  edgewright retrain status
  edgewright retrain logs kiosks-0001 --follow
  edgewright retrain history kiosks-0001
  edgewright retrain watch kiosks.yaml --every 3600
"""
)
def retrain() -> None:
    """Retrain a model when the field drifts, prove it better, and hand it to a rollout."""


@retrain.command(epilog="Example: edgewright retrain check kiosks.yaml --json")
@spec_argument
@json_option
def check(spec: Path, as_json: bool) -> None:
    """Show for each group of devices whether there is a reason to retrain, and why or why not. Starts nothing.

    Exit code 0 where there is one, 3 where there is none.
    """
    from edgewright_fleet.retraining.look import look
    from edgewright_fleet.retraining.spec import load_spec
    from edgewright_fleet.retraining.triggers.trigger import Trigger

    found = look(load_spec(spec), now())
    if as_json:
        print_json([one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in found])
    else:
        print_table(
            ("group", "retrain", "why"),
            [
                [one.evidence.group, one.kind, one.says]
                if isinstance(one, Trigger)
                else [one.evidence.group, "no", "; ".join(one.because)]
                for one in found
            ],
        )
    if not any(isinstance(one, Trigger) for one in found):
        raise click.exceptions.Exit(3)


@retrain.command(
    epilog=f"""\b
Examples:
  edgewright retrain watch kiosks.yaml
  edgewright retrain watch kiosks.yaml --once      # from cron, or a systemd timer
\b
{EXIT_CODES} Without --once it runs until Ctrl-C.
"""
)
@spec_argument
@click.option(
    "--every",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds between two looks; looking often raises no more false alarms.",
)
@click.option("--once", is_flag=True, help="Look once, do what follows, and end.")
@store_option
@broker_option
def watch(spec: Path, every: float, once: bool, store: Path, broker: str) -> None:
    """Look for reasons to retrain, and carry the runs out that follow, also those that were cut short.

    Each run is a process of its own, which takes the modules of the model as they are then. A run that stopped,
    or is held for a person, is left alone.
    """
    from edgewright_fleet.retraining.spec import check_files, load_spec

    broker_settings(broker)
    check_files(load_spec(spec))  # what is wrong from the start is not tried for ever
    check_store(spec)
    if once:
        raise click.exceptions.Exit(look_once(spec, store, broker))
    while True:
        try:
            look_once(spec, store, broker)
        except EdgewrightError as error:  # a store that is away for a while ends no watch
            click.echo(f"edgewright: {error}", err=True)
        time.sleep(every)


@retrain.command(
    epilog=f"""\b
Examples:
  edgewright retrain submit kiosks.yaml
  edgewright retrain submit kiosks.yaml --why "the cameras were cleaned" --json
\b
{EXIT_CODES}
"""
)
@spec_argument
@why_option
@store_option
@broker_option
@json_option
def submit(spec: Path, why: str | None, store: Path, broker: str, as_json: bool) -> None:
    """Retrain now, by hand: data, training, conversion, comparison, release, rollout.

    The rollout is of bare devices, or where SPEC names promotion.cluster a ModelRollout there, which is watched.
    Ctrl-C ends this command and not the training: 'edgewright retrain resume' takes the run up again.
    """
    from edgewright_fleet.retraining.loop import by_hand
    from edgewright_fleet.retraining.spec import load_spec
    from edgewright_fleet.rollout.controller import operator

    settings = broker_settings(broker)
    check_store(spec)
    run = by_hand(load_spec(spec), why or "", operator(), now())
    click.echo(f"{run.name}: {run.folder}", err=True)
    drive_run(run, store, settings, as_json)


@retrain.command(epilog=f"Example: edgewright retrain resume kiosks-0001\n\n{EXIT_CODES}")
@click.argument("run")
@runs_option
@store_option
@broker_option
@json_option
def resume(run: str, runs: Path, store: Path, broker: str, as_json: bool) -> None:
    """Go on with a run that was cut short, stopped or cancelled, at the stage that it is in.

    Training goes on from its newest whole checkpoint.
    """
    from edgewright_fleet.rollout.controller import operator

    found, settings = _run(run, runs), broker_settings(broker)
    check_store(found.spec_path)
    with found.held():
        found.resume(f"resumed by {operator()}", now())
    drive_run(found, store, settings, as_json)


@retrain.command(epilog="Example: edgewright retrain status kiosks-0001 --json")
@click.argument("run", required=False)
@runs_option
@json_option
def status(run: str | None, runs: Path, as_json: bool) -> None:
    """Show where a run is; without RUN, where all are."""
    from edgewright_fleet.retraining.loop import described
    from edgewright_fleet.retraining.run import Run, names

    found = [_run(run, runs)] if run else [Run(runs / name) for name in names(runs)]
    if not found:
        click.echo(f"{runs}: holds no runs", err=True)
    documents = [described(each) for each in found]
    if as_json:
        print_json(documents[0] if run else documents)
        return
    print_table(
        ("run", "is", "stage", "step", "loss", "left", "says"),
        [
            [
                d["run"],
                d["standing"],
                d["stage"] or "",
                "" if d["step"] is None else f"{d['step']} of {d['steps'] or '?'}",
                "" if d["loss"] is None else f"{d['loss']:.4g}",
                "" if d["left_s"] is None else f"{d['left_s']:.0f} s",
                d["says"],
            ]
            for d in documents
        ],
    )


@retrain.command(epilog="Example: edgewright retrain logs kiosks-0001 --follow")
@click.argument("run")
@click.option("--follow", "-f", is_flag=True, help="Until the training ends.")
@runs_option
def logs(run: str, follow: bool, runs: Path) -> None:
    """Print what the ranks of a run's training wrote, each line after its rank."""
    from edgewright_fleet.retraining.loop import training_logs

    line = None
    for line in training_logs(_run(run, runs), follow=follow):
        click.echo(line)
    if line is None:
        click.echo("the ranks have written nothing", err=True)


@retrain.command(epilog='Example: edgewright retrain cancel kiosks-0001 --why "too dear"')
@click.argument("run")
@why_option
@runs_option
def cancel(run: str, why: str | None, runs: Path) -> None:
    """Stop a run; training writes a checkpoint first. 'resume' takes it up again."""
    from edgewright_fleet.retraining.loop import cancel as stop
    from edgewright_fleet.rollout.controller import operator

    click.echo(stop(_run(run, runs), f"cancelled by {operator(why)}", now()))


@retrain.command(
    epilog=f'Example: edgewright retrain promote kiosks-0001 --why "tried by hand"\n\n{EXIT_CODES}'
)
@click.argument("run")
@click.option("--why", required=True, help="The reason, for the record.")
@runs_option
@store_option
@broker_option
@json_option
def promote(run: str, why: str, runs: Path, store: Path, broker: str, as_json: bool) -> None:
    """Release a candidate that is held: one that was not found better for certain, or waits for a person."""
    from edgewright_fleet.rollout.controller import operator

    found, settings = _run(run, runs), broker_settings(broker)
    check_store(found.spec_path)
    with found.held():
        found.approve(why, operator(), now())
    drive_run(found, store, settings, as_json)


@retrain.command(epilog="Example: edgewright retrain history kiosks-0001 --json")
@click.argument("run")
@runs_option
@json_option
def history(run: str, runs: Path, as_json: bool) -> None:
    """Show what led to what in a run, from its trigger on; as JSON with the evidence of each link."""
    found = _run(run, runs)
    if as_json:
        print_json([link.model_dump(mode="json", by_alias=True) for link in found.chain.links])
        return
    rows = [[f"{link.at.astimezone():%Y-%m-%d %H:%M:%S}", link.kind, link.says] for link in found.chain.links]
    print_table(
        ("at", "link", "what happened"), rows, title=f"{found.name}; the chain ends in {found.chain.head}"
    )


@retrain.command(epilog="Example: edgewright retrain render kiosks.yaml --run kiosks-0007 > run.yaml")
@spec_argument
@click.option("--run", "name", required=True, help="Name of the run; the job has it.")
def render(spec: Path, name: str) -> None:
    """Print the Kubernetes objects of a training run as YAML, for a repository that a cluster follows."""
    from edgewright.errors import ConfigError
    from edgewright_fleet.retraining.job import TrainingJob
    from edgewright_fleet.retraining.kubernetes.objects import rendered
    from edgewright_fleet.retraining.spec import load_spec

    wanted = load_spec(spec)
    training = wanted.training
    if training.kubernetes is None:
        raise ConfigError(
            "training.backend is local: there is nothing to render",
            where=str(spec),
            remedy="say backend: kubernetes, with a table 'kubernetes'",
        )
    job = TrainingJob(
        name=name,
        folder=wanted.runs / name / "training",
        data={"training": wanted.data.training},
        weights=wanted.weights,
        code=wanted.code,
        **training.model_dump(exclude={"backend", "kubernetes"}),
    )
    click.echo(rendered(job, training.kubernetes), nl=False)


def _run(text: str, runs: Path) -> Run:
    """A run by its name below `runs`, or by its folder."""
    from edgewright_fleet.retraining.run import Run

    return Run(Path(text) if "/" in text else runs / text)
