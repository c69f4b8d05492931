"""Are unsigned or signed activations right for ONNX Runtime on Arm? Counted on emulated cores.

    python -m benchmarks.arm_activations            # prints the table, some five minutes
    python -m benchmarks.arm_activations --write    # and keeps it in benchmarks/results/

Each model is quantised once, and written with unsigned and with signed activations; the published aarch64
wheel executes both and the float model. It needs the Debian packages qemu-user, mmdebstrap and gcc, and the
demo's models.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from benchmarks.arm_activations.emulated_core import CORES, WHEELS, Core, count, prepare
from benchmarks.converters.models import MODELS
from benchmarks.sixteen_bit import KINDS
from edgewright import convert
from edgewright.artifact.release import open_all
from edgewright.durable_file import write_durably
from edgewright.errors import EdgewrightError

Kind = Literal["float32", "uint8", "int8"]
RESULT = Path(__file__).parents[1] / "results" / f"arm-activations-{date.today().isoformat()}.md"
SAMPLES = 8
INTEGER_KINDS = ("SDOT", "UDOT", "SMMLA", "UMMLA", "SMLAL", "SMULL")
HEADER = """# Unsigned or signed activations on Arm, {today}

Instructions of one inference in millions, on one thread of a core that QEMU emulates, by
`python -m benchmarks.arm_activations`. EMULATED: not a time, for there is no cache, memory or issue width. The
wheels ({wheels}) are those that a device installs.

| model | core | float | unsigned | signed | signed / unsigned | products, unsigned | products, signed |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"keep the table as results/{RESULT.name}")
    write = parser.parse_args().write
    try:
        prepare()
        text = table()
    except EdgewrightError as error:
        print(f"benchmarks.arm_activations: {error}", file=sys.stderr)
        sys.exit(2)
    print(text)
    if write:
        write_durably(RESULT, text.encode())


def table() -> str:
    """Every model on every core."""
    models: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {**KINDS}
    for model in MODELS.values():
        models[model.title] = (
            model.build,
            (1, 1, 28, 28) if model.data == "fashion-mnist" else (1, 3, 224, 224),
        )
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for title, (build, shape) in models.items():
            print(f"{title}: converting and counting", file=sys.stderr)
            files = _files(build, shape, Path(folder) / str(len(rows)))
            rows += [_row(title, core, {k: count(core, path) for k, path in files.items()}) for core in CORES]
    wheels = ", ".join(WHEELS[:2])
    return HEADER.format(today=date.today().isoformat(), wheels=wheels) + "\n".join(rows) + "\n"


def _files(build: Callable[[], nn.Module], shape: tuple[int, ...], folder: Path) -> Mapping[Kind, Path]:
    """The model in float and, from one decision, with both kinds of activations."""
    folder.mkdir()
    torch.manual_seed(0)
    network = build().eval()
    x = np.random.default_rng(0).standard_normal((SAMPLES, *shape[1:])).astype(np.float32)
    built_in = (resources.files("edgewright_profiles") / "data" / "raspberry-pi-5.toml").read_text()
    signed = folder / "signed.toml"
    signed.write_text(built_in.replace('"raspberry-pi-5"', '"signed"', 1).replace('"uint8"', '"int8"'))
    files: dict[Kind, Path] = {"float32": folder / "float32.onnx"}
    program = torch.onnx.export(network, (torch.from_numpy(x[:1]),), dynamo=True, verbose=False)
    assert program is not None
    program.save(str(files["float32"]))
    convert(
        network,
        calibration={"x": x},
        profile=["raspberry-pi-5", signed],
        format="onnx",
        precision="int8",
        effort="quick",
        keep_failed=True,  # noise for images: what the sums come to is not looked at
        output=folder / "release",
    )
    for artifact in open_all(str(folder / "release")):
        kind: Kind = "int8" if artifact.manifest.profile == "signed" else "uint8"
        files[kind] = folder / f"{kind}.onnx"
        files[kind].write_bytes(artifact.model_path.read_bytes())
    return files


def _row(title: str, core: Core, counts: Mapping[Kind, Mapping[str, int]]) -> str:
    millions = [f"{counts[kind]['instructions'] / 1e6:.2f}" for kind in ("float32", "uint8", "int8")]
    ratio = counts["int8"]["instructions"] / counts["uint8"]["instructions"]
    products = [
        ", ".join(kind for kind in INTEGER_KINDS if counts[activations].get(kind, 0) * 100 > _most(counts))
        for activations in ("uint8", "int8")
    ]
    return f"| {' | '.join([title, core.name, *millions, f'{ratio:.2f}', *products])} |"


def _most(counts: Mapping[Kind, Mapping[str, int]]) -> int:
    """Of any kind of product: what is a hundredth of it is not shown."""
    return max(counts[kind].get(product, 0) for kind in counts for product in INTEGER_KINDS)


if __name__ == "__main__":
    main()
