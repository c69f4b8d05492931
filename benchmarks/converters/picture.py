"""A result as a picture: for each model, accuracy lost against speed gained; the best corner is the top right."""

from __future__ import annotations

from pathlib import Path

from benchmarks.converters.results import ModelResult, Result
from benchmarks.converters.tools import TOOLS

COLOURS = dict(zip(TOOLS, ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e"), strict=True))
MARKERS = {"onnxruntime": "o", "ai-edge-litert": "s", "openvino": "^"}


def draw(result: Result, path: Path) -> None:
    """Write the plot."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    count = len(result.models)
    figure, axes = plt.subplots(1, count, figsize=(5.5 * count, 6), squeeze=False, layout="constrained")
    for axis, model in zip(axes[0], result.models, strict=True):
        _panel(axis, model)
    figure.suptitle(f"INT8 against float on {result.processor}, one thread, {result.date}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: object, model: ModelResult) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    for row in model.rows:
        if row.speed_up is None or row.agreement is None:
            continue
        # Without labels, what disagrees with the float model counts as lost.
        lost = row.change.value if row.change else row.agreement.value - 1
        low = row.change.low if row.change else row.agreement.low - 1
        high = row.change.high if row.change else row.agreement.high - 1
        axis.errorbar(
            row.speed_up.value,
            100 * lost,
            yerr=[[100 * (lost - low)], [100 * (high - lost)]],
            marker=MARKERS[(row.runtime or "").split()[0]],
            color=COLOURS[row.tool],
            markersize=8,
            elinewidth=0.8,
            label=f"{row.name} ({(row.runtime or '').split()[0]})",
        )
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.set_title(model.title, fontsize=10)
    axis.set_xlabel("speed-up over the float model in the same runtime")
    axis.set_ylabel("change of accuracy, points" if model.float_accuracy else "agreement − 100 %, points")
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
