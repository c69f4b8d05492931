"""An Arm core under QEMU that runs the published wheels: its file system, made once, and a count of instructions.

It shows which kernels a runtime takes and how many instructions they are. It is not a time: there is no cache, no
memory and no issue width.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.converters.cache import cache_folder
from benchmarks.converters.child import run_step
from edgewright.errors import EdgewrightError

HERE = Path(__file__).parent
GUEST_PYTHON = "3.11"
"""Of Debian bookworm."""
WHEELS = ("numpy", "onnxruntime", "flatbuffers", "packaging", "protobuf")
PROGRAMS = {"qemu-aarch64": "qemu-user", "mmdebstrap": "mmdebstrap", "gcc": "gcc"}


@dataclass(frozen=True)
class Core:
    """What QEMU is asked for, and the part number by which libraries know the core (arch/arm64's cputype.h)."""

    name: str
    cpu: str
    part: int
    found_in: str


CORES = (
    Core("Cortex-A72", "cortex-a72", 0xD08, "Raspberry Pi 4"),
    Core("Cortex-A76, dot products", "cortex-a76", 0xD0B, "Raspberry Pi 5; Jetson Orin's A78 has the same"),
    # Without SVE and SME: with them QEMU 7.2 is no core that exists.
    Core("core with i8mm", "max,sve=off,sme=off", 0xD0B, "phones since 2021"),
)


def prepare() -> None:
    """Make the core's file system and the plugin where they are not there. Raises `EdgewrightError`."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            raise EdgewrightError(f"there is no '{program}'", remedy=f"apt-get install {package}")
    folder = _folder()
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    log = folder / "log"
    libraries = "python3-minimal,libpython3-stdlib,libstdc++6"
    bootstrap = ["mmdebstrap", "--arch=arm64", "--variant=extract", f"--include={libraries}"]
    run_step([*bootstrap, "bookworm", folder / "root"], log)
    (folder / "root" / "proc").mkdir(exist_ok=True)
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    where: list[str | Path] = [
        "--target",
        folder / "site",
        "--python-version",
        GUEST_PYTHON,
        "--implementation",
        "cp",
    ]
    pins = HERE.parent / "converters" / "requirements" / "runtimes.txt"
    run_step([*pip, *where, *platforms, "--constraint", pins, *WHEELS], log)
    shared = ["-O2", "-shared", "-fPIC", "-o"]
    run_step(["gcc", *shared, folder / "count.so", HERE / "count.c"], log)
    (folder / "complete").touch()


def count(core: Core, model: Path) -> Mapping[str, int]:
    """Instructions of one inference by kind, on one thread. Raises `EdgewrightError` where the guest fails."""
    folder = _folder()
    cpuinfo = (
        f"processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {core.part:#05x}\n\n"
    )
    (folder / "root" / "proc" / "cpuinfo").write_text(cpuinfo)
    python = folder / "root" / "usr" / "bin" / f"python{GUEST_PYTHON}"
    emulator: list[str | Path] = [
        "qemu-aarch64",
        "-cpu",
        core.cpu,
        "-plugin",
        folder / "count.so",
        "-L",
        folder / "root",
    ]
    done = subprocess.run(
        [*emulator, python, HERE / "guest.py", model],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder / "site")},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise EdgewrightError(f"the emulated {core.name} ended with {done.returncode}: {last}")
    found: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        if line.startswith("COUNT "):
            _, kind, number = line.split()
            found[kind] += int(number)
    return found


def _folder() -> Path:
    return cache_folder() / "arm"
