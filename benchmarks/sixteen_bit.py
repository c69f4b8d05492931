"""Is a layer that INT8 damages better given 16-bit activations, or left in float? Measured in both runtimes.

    python -m benchmarks.sixteen_bit            # prints the table, half a minute
    python -m benchmarks.sixteen_bit --write    # and keeps it in benchmarks/results/

Three layers of one kind follow one another. The middle one is INT8, float, or INT8 weights by 16-bit activations
(UINT16 in ONNX Runtime, symmetric INT16 in LiteRT), between two INT8 layers: that is timed, in CPU time and in
turn. Alone, between two float layers, it shows what its own rounding costs: that is the signal to noise. Mixed
precision is to try 16 bits only if they come out faster than float somewhere, with less noise than INT8.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
import torch
from ai_edge_quantizer import recipe
from ai_edge_quantizer.quantizer import Quantizer
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from torch import nn

from edgewright.durable_file import write_durably
from edgewright.latency_benchmark import host_processor
from edgewright_converters.execution import Execution
from edgewright_converters.export import ExportedGraph, export
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.observation import observe
from edgewright_converters.optimise import optimise
from edgewright_converters.quantise.decision import own_ranges
from edgewright_converters.silence import silenced
from edgewright_converters.source import load_source
from edgewright_converters.tflite_structure import tflite_structure

Array = NDArray[Any]
Middle = Literal["INT8", "float", "16-bit"]
MIDDLES: tuple[Middle, ...] = ("INT8", "float", "16-bit")
ROUNDS = 60
SAMPLES = 8
RESULT = Path(__file__).parent / "results" / f"sixteen-bit-{date.today().isoformat()}.md"


def _chain(layer: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(layer(), nn.ReLU(), layer(), nn.ReLU(), layer())


KINDS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution 3×3, 64 channels": (
        lambda: _chain(lambda: nn.Conv2d(64, 64, 3, padding=1)),
        (1, 64, 28, 28),
    ),
    "convolution 1×1, 128 channels": (lambda: _chain(lambda: nn.Conv2d(128, 128, 1)), (1, 128, 28, 28)),
    "depthwise 3×3, 128 channels": (
        lambda: _chain(lambda: nn.Conv2d(128, 128, 3, padding=1, groups=128)),
        (1, 128, 28, 28),
    ),
    "matrix product, 512 × 512": (lambda: _chain(lambda: nn.Linear(512, 512)), (1, 512)),
}


@dataclass(frozen=True)
class Row:
    """One kind of layer in one runtime: milliseconds of CPU in an INT8 chain, decibels alone in a float one."""

    kind: str
    runtime: str
    milliseconds: Mapping[Middle, float]
    decibels: Mapping[Middle, float]


Run = Callable[[Array], Array]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"keep the table as results/{RESULT.name}")
    write = parser.parse_args().write
    text = markdown([row for kind in KINDS for row in measured(kind)])
    print(text)
    if write:
        write_durably(RESULT, text.encode())


def measured(kind: str) -> list[Row]:
    """Both runtimes on one kind of layer."""
    torch.manual_seed(0)
    model, shape = KINDS[kind][0]().eval(), KINDS[kind][1]
    rng = np.random.default_rng(0)
    samples = [rng.standard_normal(shape).astype(np.float32) for _ in range(SAMPLES)]
    source = load_source(model)
    (name,) = source.input_names
    feeds = [{name: sample} for sample in samples]
    outputs = source.run(feeds[0])
    rows = []
    for model_format, make, version in (
        ("onnx", _onnx_runs, f"ONNX Runtime {ort.__version__}"),
        ("tflite", _litert_runs, f"LiteRT {importlib.metadata.version('ai-edge-litert')}"),
    ):
        graph = optimise(export(source, feeds, outputs, model_format))  # type: ignore[arg-type]
        chains, alone, reference = make(graph, feeds)
        taken = samples
        if model_format == "tflite" and len(shape) == 4:
            taken = [np.ascontiguousarray(sample.transpose(0, 2, 3, 1)) for sample in samples]
        rows.append(Row(kind, version, _times(chains, taken[0]), _decibels(alone, reference, taken)))
    return rows


def _times(chains: Mapping[Middle, Run], sample: Array) -> dict[Middle, float]:
    """Median CPU milliseconds of each, one inference of each in turn."""
    taken: dict[Middle, list[float]] = {middle: [] for middle in chains}
    for _ in range(ROUNDS):
        for middle, run in chains.items():
            started = time.process_time()
            run(sample)
            taken[middle].append(time.process_time() - started)
    return {middle: float(np.median(times)) * 1e3 for middle, times in taken.items()}


def _decibels(runs: Mapping[Middle, Run], reference: Run, samples: Sequence[Array]) -> dict[Middle, float]:
    found: dict[Middle, float] = {}
    expected = [reference(sample).copy() for sample in samples]
    power = sum(float(np.square(one).sum()) for one in expected)
    for middle, run in runs.items():
        noise = sum(float(np.square(run(s) - one).sum()) for s, one in zip(samples, expected, strict=True))
        found[middle] = 10 * float(np.log10(power / max(noise, 1e-30)))
    return found


def _onnx_runs(
    graph: ExportedGraph, feeds: Sequence[Mapping[str, Array]]
) -> tuple[dict[Middle, Run], dict[Middle, Run], Run]:
    structure = FloatGraph.of(graph)
    statistics = observe(Execution(structure), (structure.feed(feed) for feed in feeds), "samples")
    ranges = {name: found.range for name, found in statistics.items()}
    layers = [layer.name for layer in structure.layers]
    before, after = structure.layers[1].input, structure.layers[2].input

    def quantised(middle: Middle, others: Middle) -> Run:
        overrides: dict[str, Any] = {}
        sixteen = {"quant_type": QuantType.QUInt16}
        if middle == "16-bit" and others == "INT8":
            eight = QuantType.QUInt8
            overrides = {
                before: [{"quant_type": eight, "convert": {**sixteen, "recv_nodes": {layers[1]}}}],
                after: [{**sixteen, "convert": {"quant_type": eight, "recv_nodes": {layers[2]}}}],
            }
        excluded = [] if others == "INT8" else [layers[0], layers[2]]
        quantiser = QDQQuantizer(
            onnx.load_from_string(graph.data),
            True,
            False,
            QuantType.QInt8,
            QuantType.QUInt16 if middle == "16-bit" and others == "float" else QuantType.QUInt8,
            TensorsData(
                CalibrationMethod.MinMax, {n: (np.float32(a), np.float32(b)) for n, (a, b) in ranges.items()}
            ),
            [],
            excluded + ([layers[1]] if middle == "float" else []),
            sorted({*QLinearOpsRegistry, *QDQRegistry}),
            {"WeightSymmetric": True, "TensorQuantOverrides": overrides},
        )
        with silenced():
            quantiser.quantize_model()
        return _ort(quantiser.model.model.SerializeToString())

    chains = {middle: quantised(middle, "INT8") for middle in MIDDLES}
    alone: dict[Middle, Run] = {middle: quantised(middle, "float") for middle in ("INT8", "16-bit")}
    return chains, alone, _ort(graph.data)


def _ort(data: bytes) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # It would round the weights of a layer in float between integer ones by itself, and run that in INT8.
    session = ort.InferenceSession(
        data, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
    name = session.get_inputs()[0].name
    return lambda sample: session.run(None, {name: sample})[0]


def _litert_runs(
    graph: ExportedGraph, feeds: Sequence[Mapping[str, Array]]
) -> tuple[dict[Middle, Run], dict[Middle, Run], Run]:
    ranges = {
        name: {"min": np.float32(low), "max": np.float32(high)}
        for name, (low, high) in own_ranges(graph, feeds).items()
    }
    layers = [o for o in tflite_structure(graph.data).operators if o.macs]
    assert len(layers) == 3

    def rules(middle: Middle, which: str) -> list[dict[str, Any]]:
        if middle == "float":
            return [{"regex": which, "operation": "*", "algorithm_key": "no_quantize", "op_config": {}}]
        made = recipe.static_wi8_ai8() if middle == "INT8" else recipe.static_wi8_ai16()
        return [{**rule, "regex": which} for rule in made]

    place = f"{re.escape(layers[1].name)};$"

    def quantised(middle: Middle, others: Middle) -> Run:
        asked = [*(rules(others, ".*") if others != "float" else []), *rules(middle, place)]
        with silenced():
            made = Quantizer(graph.data, asked).quantize(ranges, enable_progress_report=False)
        return _litert(bytes(made.quantized_model))

    chains = {middle: quantised(middle, "INT8") for middle in MIDDLES}
    alone: dict[Middle, Run] = {middle: quantised(middle, "float") for middle in ("INT8", "16-bit")}
    return chains, alone, _litert(graph.data)


def _litert(data: bytes) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    with silenced():
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(sample: Array) -> Array:
        stored = sample
        if taken["dtype"] is not np.float32:
            scale, zero_point = taken["quantization"]
            info = np.iinfo(taken["dtype"])
            stored = np.clip(np.rint(sample / scale) + zero_point, info.min, info.max).astype(taken["dtype"])
        interpreter.set_tensor(taken["index"], stored)
        interpreter.invoke()
        made: Array = interpreter.get_tensor(given["index"])
        if given["dtype"] is np.float32:
            return made
        scale, zero_point = given["quantization"]
        return (made.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)

    return run


def markdown(rows: Sequence[Row]) -> str:
    """The table, and whether 16 bits won anywhere."""
    lines = [
        f"# A layer at 16 bits or in float, {date.today().isoformat()}",
        "",
        f"Measured on {host_processor()} ({platform.machine()}), one thread, by",
        "`python -m benchmarks.sixteen_bit`. CPU milliseconds of three layers whose middle one is as named,",
        f"median of {ROUNDS} in turn; decibels of the middle layer alone between float ones. Another",
        "architecture was not measured.",
        "",
        "| layer | runtime | INT8, ms | float, ms | 16-bit, ms | INT8, dB | 16-bit, dB | faster than float |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ms, db = row.milliseconds, row.decibels
        lines.append(
            f"| {row.kind} | {row.runtime} | {ms['INT8']:.3f} | {ms['float']:.3f} | {ms['16-bit']:.3f} "
            f"| {db['INT8']:.1f} | {db['16-bit']:.1f} | {'yes' if wins(row) else 'no'} |"
        )
    won = [row for row in rows if wins(row)]
    said = ", ".join(f"{row.kind} in {row.runtime}" for row in won)
    lines += ["", f"16 bits win: {said}." if won else "Nowhere are 16 bits faster than float."]
    return "\n".join(lines) + "\n"


def wins(row: Row) -> bool:
    """Whether 16 bits are faster than float, and less noisy than INT8."""
    better = row.decibels["16-bit"] > row.decibels["INT8"]
    return better and row.milliseconds["16-bit"] < row.milliseconds["float"]


if __name__ == "__main__":
    main()
