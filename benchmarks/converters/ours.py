"""Our own conversion of one model to one format, with the settings that a user gets.

A child process: `python -m benchmarks.converters.ours NAME FORMAT OUTPUT [--quick]`. It is given the calibration
data and never the evaluation data, and writes the artifact's model file and, beside it, its manifest.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import cast

import edgewright as ew
from benchmarks.converters.cache import PreparedModel
from benchmarks.converters.prepare import load_network
from edgewright.artifact.manifest import ModelFormat
from edgewright.artifact.release import open_all
from edgewright.contract import to_json

PROFILE = "x86-64-gateway"
"""The profile of the kind of host that this is measured on."""


def main() -> None:
    name, model_format, output, *flags = sys.argv[1:]
    prepared = PreparedModel(name, quick="--quick" in flags)
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "registry"
        ew.convert(
            load_network(prepared),
            calibration=prepared.calibration,
            profile=PROFILE,
            format=cast("ModelFormat", model_format),
            output=registry,
            name=name,
        )
        (artifact,) = open_all(str(registry))
        shutil.copyfile(artifact.model_path, output)
        Path(f"{output}.json").write_bytes(to_json(artifact.manifest))


if __name__ == "__main__":
    main()
