"""A virtual environment for each peer, below the cache folder, from the pins in `requirements/`.

Peers want versions of each other's packages that do not agree, and none may touch the one that is measured.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from benchmarks.converters.cache import cache_folder
from benchmarks.converters.child import run_step

REQUIREMENTS = Path(__file__).parent / "requirements"


def environment_python(name: str) -> Path:
    """The interpreter of an environment, which is made where it is not there. Raises `StepFailedError`."""
    requirements = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache_folder() / "environments" / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        log = cache_folder() / "environments" / f"{name}.log"
        run_step([sys.executable, "-m", "venv", folder], log)
        # The pins name every package, but those that foolbox would need to attack models.
        run_step([python, "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", requirements], log)
        (folder / "complete").touch()
    return python
