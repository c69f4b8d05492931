"""An ONNX artifact on an x86 processor without VNNI, which QEMU emulates."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from static_int8 import static_int8

from edgewright.runtime.session import open_session
from edgewright_converters.calibration import load_samples
from edgewright_converters.export import export
from edgewright_converters.optimise import optimise
from edgewright_converters.source import load_source
from edgewright_converters.source_check import check_takes

EMULATOR = shutil.which("qemu-x86_64")
RUN = """
import sys, numpy
from pathlib import Path
from edgewright.runtime.session import open_session
model, inputs, outputs = sys.argv[1:]
numpy.save(outputs, open_session(Path(model), "onnx").run([numpy.load(inputs)])[0])
"""


class Bright(torch.nn.Module):
    """Weights of one sign: sums of products are as large as they can be."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(8, 16, 3)
        self.second = torch.nn.Linear(16, 4)
        with torch.no_grad():
            for weight in (self.first.weight, self.second.weight):
                weight.abs_()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.second(torch.relu(self.first(image)).mean((2, 3)))
        return scores


@pytest.mark.slow
@pytest.mark.skipif(EMULATOR is None or platform.machine() != "x86_64", reason="needs qemu-user on x86")
@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_artifact_computes_the_same_integers_without_vnni(tmp_path: Path, activation: Any) -> None:
    torch.manual_seed(0)
    images = np.random.default_rng(0).uniform(0.5, 1, (16, 8, 6, 6)).astype(np.float32)
    source = load_source(Bright().eval())
    samples = load_samples({"x": images}, source.input_names)
    examples = [sample.inputs for sample in samples.head(2)]
    graph = optimise(export(source, examples, check_takes(source, examples[0]), "onnx"))
    model, inputs, outputs = (tmp_path / name for name in ("model.onnx", "inputs.npy", "outputs.npy"))
    model.write_bytes(static_int8(graph, samples, activation).data)
    session = open_session(model, "onnx")
    np.save(inputs, np.full(session.inputs[0].shape, 255 if activation == "uint8" else 127, activation))
    (expected,) = session.run([np.load(inputs)])
    python = os.path.realpath(sys.executable)
    assert EMULATOR is not None
    subprocess.run(
        [EMULATOR, "-cpu", "EPYC-Rome", python, "-c", RUN, model, inputs, outputs],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
        check=True,
        timeout=300,
    )
    assert np.array_equal(np.load(outputs), expected)
