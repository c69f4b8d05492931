"""Our own conversion of one model to both formats, with the settings that a user gets.

A child process: `python -m benchmarks.converters.ours NAME OUTPUT [--quick]`. It is given the calibration data and
never the evaluation data, and writes each artifact's model file, OUTPUT.onnx and OUTPUT.tflite, and beside it its
manifest.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import edgewright as ew
from benchmarks.converters.cache import PreparedModel
from benchmarks.converters.prepare import load_network
from edgewright.artifact.release import open_all
from edgewright.contract import to_json

PROFILE = "x86-64-gateway"
"""The profile of the kind of host that this is measured on."""


def main() -> None:
    name, output, *flags = sys.argv[1:]
    prepared = PreparedModel(name, quick="--quick" in flags)
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "registry"
        ew.convert(
            load_network(prepared),
            calibration=prepared.calibration,
            profile=PROFILE,
            format=("onnx", "tflite"),
            output=registry,
            name=name,
        )
        for artifact in open_all(str(registry)):
            model = f"{output}.{artifact.manifest.format}"
            shutil.copyfile(artifact.model_path, model)
            Path(f"{model}.json").write_bytes(to_json(artifact.manifest))


if __name__ == "__main__":
    main()
