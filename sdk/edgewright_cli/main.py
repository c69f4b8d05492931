"""The entry point: finds the command, prints one line for an error of ours, and returns its exit code."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import tempfile
from pathlib import Path

import click

from edgewright.durable_file import storage_error
from edgewright.errors import EdgewrightError
from edgewright.version import __version__

COMMANDS = {
    "agent": "Run the device agent.",
    "bench": "Measure a model's latency on this host.",
    "convert": "Convert a model to verified INT8 artifacts for hardware profiles.",
    "demo": "Walk the whole loop once, on this machine.",
    "fleet": "Roll releases out to devices and watch them.",
    "inspect": "Show what an artifact or release is and was seen to achieve.",
    "profile": "List, show and detect hardware profiles.",
    "trust": "Sign releases, so that devices take no others.",
    "retrain": "Retrain a model when the field drifts, prove it better, and hand it to a rollout.",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of the same name, imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"edgewright_cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Click would import every command to show its help; the texts stand here instead.
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with 'edgewright demo', or 'edgewright convert --help' for a model of your own.",
)
@click.version_option(__version__, prog_name="edgewright")
def edgewright() -> None:
    """Take a PyTorch model to a fleet of edge devices as verified INT8, and keep it healthy there."""


def main() -> None:
    """Run the command; exit with its code, 2 after an error of the family, 130 after Ctrl-C."""
    try:
        code = edgewright.main(standalone_mode=False)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.UsageError as error:
        hint = f"; see '{error.ctx.command_path} --help'" if error.ctx else ""
        _fail(f"{' '.join(error.format_message().split()).rstrip('.')}{hint}")
    except click.ClickException as error:
        _fail(error.format_message())
    except EdgewrightError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; the interpreter must not flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.startswith("edgewright"):
            raise
        _fail(f"the package '{missing}' is not installed; pip install 'edgewright[all]'")
    except OSError as error:
        # A write that fails for want of space names no file; temporary files are the ones we do not name either.
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        _fail(str(storage_error(error, Path(error.filename or tempfile.gettempdir()))))
    sys.exit(code if isinstance(code, int) else 0)


def _fail(line: str) -> None:
    click.echo(f"edgewright: {line}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
