"""Trains or reads one model and writes what every tool starts from: float exports, data, float scores.

A child process: `python -m benchmarks.converters.prepare NAME [--quick]`. What is there already is not made again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.converters.cache import PreparedModel
from benchmarks.converters.fashion_mnist import load_fashion_mnist
from benchmarks.converters.models import MODELS, QUICK_CALIBRATION, QUICK_EPOCHS, QUICK_EVALUATION
from benchmarks.converters.training import MAX_EPOCHS, train


def load_network(prepared: PreparedModel) -> nn.Module:
    """The trained model in evaluation mode."""
    network = MODELS[prepared.name].build()
    if prepared.weights.exists():
        network.load_state_dict(torch.load(prepared.weights, weights_only=True))
    return network.eval()


def main() -> None:
    prepared = PreparedModel(sys.argv[1], quick="--quick" in sys.argv[2:])
    prepared.folder.mkdir(parents=True, exist_ok=True)
    if MODELS[prepared.name].data == "fashion-mnist":
        _prepare_fashion_mnist(prepared)
    network = load_network(prepared)
    with np.load(prepared.evaluation) as evaluation:
        images = torch.from_numpy(evaluation["x"])
    if not prepared.scores.exists():
        with torch.inference_mode():
            scores = torch.cat([network(batch) for batch in images.split(50)])
        _write(prepared.scores, lambda path: np.save(path, scores.numpy()))
    if not prepared.onnx.exists():
        program = torch.onnx.export(network, (images[:1],), dynamo=True, input_names=["x"], verbose=False)
        assert program is not None
        _write(prepared.onnx, lambda path: program.save(str(path)))
    if not prepared.tflite.exists():
        import litert_torch

        channels_last = litert_torch.to_channel_last_io(network, args=[0]).eval()
        model = litert_torch.convert(channels_last, (images[:1].permute(0, 2, 3, 1).contiguous(),))
        _write(prepared.tflite, lambda path: model.export(str(path)))


def _prepare_fashion_mnist(prepared: PreparedModel) -> None:
    model = MODELS[prepared.name]
    if prepared.weights.exists() and prepared.calibration.exists() and prepared.evaluation.exists():
        return
    data = load_fashion_mnist()
    calibrating = QUICK_CALIBRATION if prepared.quick else model.calibration_samples
    judging = QUICK_EVALUATION if prepared.quick else model.evaluation_samples
    train_x, train_y = data.train.x[:calibrating], data.train.y[:calibrating]
    test_x, test_y = data.test.x[:judging], data.test.y[:judging]
    _write(prepared.calibration, lambda path: np.savez(path, x=train_x, y=train_y))
    _write(prepared.evaluation, lambda path: np.savez(path, x=test_x, y=test_y))
    if not prepared.weights.exists():
        torch.manual_seed(0)
        network = model.build()

        def on_epoch(epoch: int, accuracy: float) -> None:
            print(f"{prepared.name}: epoch {epoch}, validation accuracy {accuracy:.2%}", file=sys.stderr)

        weights = train(
            network,
            data,
            on_epoch,
            learning_rate=model.learning_rate,
            shifts=model.shifts,
            max_epochs=QUICK_EPOCHS if prepared.quick else MAX_EPOCHS,
        )
        _write(prepared.weights, lambda path: torch.save(weights, path))


def _write(path: Path, write: object) -> None:
    """In one step, so that a run that is interrupted leaves no half of a file to be taken for a whole one."""
    assert callable(write)
    part = path.with_name(f"part-{os.getpid()}-{path.name}")
    write(part)
    part.replace(path)


if __name__ == "__main__":
    main()
