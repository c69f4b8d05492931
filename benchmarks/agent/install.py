"""What `pip install 'edgewright[agent]'` puts on a device, and whether an agent runs from that alone.

    python -m benchmarks.agent.install            # prints the table
    python -m benchmarks.agent.install --write    # puts it into device_agent/README.md

Builds the wheel, resolves it for a 64-bit Arm device from wheels alone, as a device has no compiler, and adds up
what they hold. Then installs it for this host in an environment of its own and lets a device serve from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from packaging.utils import parse_wheel_filename

from benchmarks.agent.photo_release import install
from benchmarks.agent.running_agent import FIRST_INFERENCE
from edgewright.figures import size

ROOT = Path(__file__).parents[2]
README = ROOT / "device_agent/README.md"
BEGIN, END = "<!-- what python -m benchmarks.agent.install found -->", "<!-- end of what it found -->"
PLATFORMS = ("manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
PYTHON = "3.11"
"""Of Debian 12 and so of Raspberry Pi OS."""
FORBIDDEN = {"torch", "tensorflow", "onnx", "kubernetes"}
START_S = 30.0


@dataclass(frozen=True)
class Package:
    """One wheel for the device, and the bytes of the files in it."""

    name: str
    version: str
    wheel_bytes: int
    installed_bytes: int


@dataclass(frozen=True)
class Found:
    """What the agent says when it is asked."""

    status: dict[str, Any]
    doctor: list[dict[str, Any]]


def build(folder: Path) -> Path:
    """The wheel of this checkout."""
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    return next(folder.glob("edgewright-*.whl"))


def packages_for_arm(wheel: Path, folder: Path, extra: str = "agent") -> list[Package]:
    """All that is installed on a 64-bit Arm device, largest first. pip fails where a package has no wheel."""
    platforms = [argument for platform in PLATFORMS for argument in ("--platform", platform)]
    _pip("download", "--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp", *platforms,
         "--constraint", str(ROOT / "constraints.txt"), "--dest", str(folder), f"{wheel}[{extra}]")  # fmt: skip
    found = []
    for path in folder.glob("*.whl"):
        name, version, *_ = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            held = sum(entry.file_size for entry in archive.infolist())
        found.append(Package(name, str(version), path.stat().st_size, held))
    forbidden = FORBIDDEN & {package.name for package in found}
    if forbidden:
        raise click.ClickException(f"a device would get {', '.join(sorted(forbidden))}")
    return sorted(found, key=lambda package: -package.installed_bytes)


def environment_with(wheel: Path, folder: Path) -> Path:
    """The `edgewright` command of a fresh environment for this host."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    _pip(
        "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), f"{wheel}[agent]", python=python
    )
    _pip("check", python=python)
    return folder / "bin/edgewright"


def serve_from(command: Path, device: Path) -> Found:
    """Let a device serve its golden vectors by that command: what its status is, and what its doctor finds."""
    install(device, '[serving]\nsocket = "api"\n')
    config = ["--config", str(device / "agent.toml")]
    bare = {"PATH": os.environ["PATH"], "HOME": str(device)}
    agent = subprocess.Popen(
        [str(command), "agent", "run", *config], env=bare, cwd=device, stderr=subprocess.DEVNULL
    )

    def ask(*what: str) -> str:
        done = subprocess.run([str(command), "agent", *what, *config], env=bare, cwd=device, capture_output=True,
                              text=True, check=False)  # fmt: skip
        if done.returncode not in (0, 3):
            raise click.ClickException(f"agent {what[0]}: {done.stderr.strip()}")
        return done.stdout

    try:
        end = time.monotonic() + START_S
        while FIRST_INFERENCE not in ask("logs"):
            if time.monotonic() > end or agent.poll() is not None:
                raise click.ClickException("the agent does not serve from its own packages")
            time.sleep(0.2)
        found = Found(json.loads(ask("status", "--json")), json.loads(ask("doctor", "--json")))
    finally:
        agent.terminate()
    code = agent.wait(START_S)
    if code != 0:
        raise click.ClickException(f"the agent ended with {code}")
    return found


def table(packages: Sequence[Package]) -> str:
    """One line a package, those that are small together."""
    large = [package for package in packages if package.installed_bytes >= 1e6]
    small = [package for package in packages if package.installed_bytes < 1e6]
    lines = ["| package | to download | installed |", "| --- | --- | --- |"]
    lines += [f"| {p.name} {p.version} | {size(p.wheel_bytes)} | {size(p.installed_bytes)} |" for p in large]
    names = ", ".join(f"{p.name} {p.version}" for p in small)
    for what, of in ((names, small), (f"**all {len(packages)}**", packages)):
        lines.append(
            f"| {what} | {size(sum(p.wheel_bytes for p in of))} | {size(sum(p.installed_bytes for p in of))} |"
        )
    return "\n".join(lines) + "\n"


def _pip(*arguments: str, python: Path = Path(sys.executable)) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"pip {arguments[0]}: {(done.stderr or done.stdout).strip()[-500:]}")


@click.command(help=__doc__)
@click.option("--write", is_flag=True, help="Put the table into device_agent/README.md.")
def main(write: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="edgewright-install-") as name:
        folder = Path(name)
        wheel = build(folder)
        text = table(packages_for_arm(wheel, folder / "arm"))
        found = serve_from(environment_with(wheel, folder / "environment"), folder / "device")
    print(text)
    print(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    if write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
