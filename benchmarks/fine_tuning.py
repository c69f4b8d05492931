"""What fine-tuning buys where the other repairs of INT8 do not reach: accuracy on test images nobody trained on.

    python -m benchmarks.fine_tuning            # prints the table, some five minutes on two cores
    python -m benchmarks.fine_tuning --write    # and keeps it in benchmarks/results/

Small depthwise CNNs with hard-swish classify Fashion-MNIST at 14×14. Batch norm's factors start one or two
decades apart: a range for the whole tensor then has few steps for the small channels, and no rescaling passes a
hard-swish. Each is converted without training data, with images alone (the float model teaches) and with their
labels too; every artifact is executed by its runtime on all 10,000 test images. Of the training images 512
calibrate and 19,488 are training data.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import edgewright as ew
from benchmarks.converters.fashion_mnist import LabelledImages, load_fashion_mnist
from benchmarks.converters.networks import CLASSES
from edgewright.artifact.manifest import ArtifactManifest
from edgewright.durable_file import write_durably
from edgewright.latency_benchmark import host_processor

Array = NDArray[Any]
IMAGES, CALIBRATION = 20_000, 512
EPOCHS, BATCH, LEARNING_RATE = 5, 128, 4e-3
RESULT = Path(__file__).parent / "results" / f"fine-tuning-{date.today().isoformat()}.md"
TAUGHT = {"none": "—", "images": "images", "labels": "images and labels"}


def uneven(decades: float, width: int = 8) -> nn.Module:
    """Three convolutions, two of them with a depthwise one before, whose channels start so many decades apart."""
    layers: list[nn.Module] = [*_normed(nn.Conv2d(1, width, 3, 2, 1, bias=False))]
    inputs = width
    for _ in range(2):
        layers += _normed(nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False))
        layers += _normed(nn.Conv2d(inputs, 2 * width, 1, bias=False))
        inputs = 2 * width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm2d)]
    weighted = [layer for layer in network if isinstance(layer, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        for norm, after in zip(norms, weighted[1:], strict=True):
            channels = norm.num_features
            factors = torch.logspace(-decades, decades / 4, channels)[torch.randperm(channels)]
            norm.weight.mul_(factors)
            along = 0 if isinstance(after, nn.Conv2d) and after.groups > 1 else 1
            shape = [1] * after.weight.ndim
            shape[along] = channels
            after.weight.div_(factors.reshape(shape))
    return network


def _normed(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.Hardswish()]


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "a decade apart": lambda: uneven(1.0),
    "two decades apart": lambda: uneven(2.0),
}


@dataclass(frozen=True)
class Row:
    """One artifact."""

    model: str
    taught: str
    manifest: ArtifactManifest
    in_float: int
    """Operators that mixed precision left in float."""
    note: str
    seconds: float
    """Of processor time, for both formats."""


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description="What fine-tuning for INT8 buys.")
    parser.add_argument("--write", action="store_true", help=f"keep the table as {RESULT.name}")
    arguments = parser.parse_args()
    table = markdown(list(measure()))
    print(table)
    if arguments.write:
        write_durably(RESULT, table.encode())


def measure() -> Iterator[Row]:
    """A row for every model, training data and format."""
    data = load_fashion_mnist()
    train = LabelledImages(_halved(data.train.x[:IMAGES]), data.train.y[:IMAGES])
    test = LabelledImages(_halved(data.test.x), data.test.y)
    calibration, taught = train.x[:CALIBRATION], slice(CALIBRATION, IMAGES)
    sets: Mapping[str, Any] = {
        "none": None, "images": train.x[taught], "labels": (train.x[taught], train.y[taught])
    }  # fmt: skip
    for model, build in MODELS.items():
        network = _trained(build, train)
        for kind, training_data in sets.items():
            began = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                report = ew.convert(
                    network,
                    calibration=calibration,
                    evaluation=(test.x, test.y),
                    training_data=training_data,
                    profile="raspberry-pi-5",
                    precision="int8",
                    output=Path(folder) / "out",
                    keep_failed=True,
                )
            seconds = time.process_time() - began
            note = next((w for w in report.warnings if "fine-tun" in w), "")
            left = max(len(m.float_operators) for m in report.artifacts)
            for manifest in report.artifacts:
                yield Row(model, kind, manifest, left, note, seconds)


def _halved(images: Array) -> Array:
    """The mean of each 2×2 pixels."""
    return np.ascontiguousarray(images.reshape(-1, 1, 14, 2, 14, 2).mean((3, 5)))


def _trained(build: Callable[[], nn.Module], data: LabelledImages) -> nn.Module:
    torch.manual_seed(0)
    network = build()
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return network.eval()


def markdown(rows: Sequence[Row]) -> str:
    """The table, and what became of each fine-tuning."""
    lines = [
        f"# Fine-tuning for INT8, {date.today().isoformat()}",
        "",
        f"Measured on {host_processor()} ({platform.machine()}) by `python -m benchmarks.fine_tuning`:",
        "Fashion-MNIST at 14×14, depthwise CNNs with hard-swish, 512 calibration images, 19,488 training images,",
        "judged on the 10,000 test images as each runtime executes the artifact. Changes are paired with float's",
        "answers, in points, with their 95 % intervals. Processor time is that of the conversion to both formats,",
        "the judging included, on a shared host.",
        "",
        "| channels | training data | format | float, % | INT8, % | change | agreement, % | SQNR, dB "
        "| float operators | CPU, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in rows:
        found = row.manifest.accuracy
        assert found.change and found.float_accuracy and found.artifact_accuracy and found.agreement
        change = found.change
        lines.append(
            f"| {row.model} | {TAUGHT[row.taught]} | {row.manifest.format} "
            f"| {100 * found.float_accuracy.value:.2f} "
            f"| {100 * found.artifact_accuracy.value:.2f} "
            f"| {100 * change.value:+.2f} ({100 * change.low:+.2f} to {100 * change.high:+.2f}) "
            f"| {100 * found.agreement.value:.2f} | {min(found.sqnr_db.values()):.1f} | {row.in_float} "
            f"| {row.seconds:.0f} |"
        )
    notes = dict.fromkeys(
        f"- {row.model}, {TAUGHT[row.taught]}: {row.note or 'not used, the goal was met without it'}."
        for row in rows
        if row.taught != "none"
    )
    return "\n".join([*lines, "", *notes]) + "\n"


if __name__ == "__main__":
    main()
