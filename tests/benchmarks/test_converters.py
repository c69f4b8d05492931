from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.converters.child import StepFailedError, run_step
from benchmarks.converters.comparison import accuracy_verdict, behind, ratio, speed_verdict
from benchmarks.converters.models import MODELS
from benchmarks.converters.picture import draw
from benchmarks.converters.results import AgainstOurs, ModelResult, Ratio, Result, Row
from benchmarks.converters.table import COLUMNS, markdown
from benchmarks.converters.tools import PEERS, VARIANTS
from edgewright.artifact.manifest import Difference
from edgewright_converters.statistics import paired_difference_of, proportion

SAME_SPEED = Ratio(value=1.0, low=0.9, high=1.1)


def difference(value: float, half: float = 0.001) -> Difference:
    return Difference(value=value, low=value - half, high=value + half, samples=10_000)


def row(tool: str, variant: str, *, accuracy: float = 0.0, time: Ratio | None = None) -> Row:
    peer = tool != "edgewright"
    return Row(
        tool=tool,
        variant=variant,
        runtime="onnxruntime 1.32.0",
        takes="uint8",
        accuracy=proportion(9100, 10_000),
        change=difference(-0.001),
        agreement=proportion(9900, 10_000),
        sqnr_db=25.0,
        latency_s=1e-4,
        speed_up=Ratio(value=2.0, low=1.9, high=2.1),
        artifact_bytes=80_000,
        convert_seconds=12.0,
        peak_rss_bytes=700_000_000,
        against_ours=AgainstOurs(
            ours="edgewright onnx", accuracy=difference(accuracy), time=time or SAME_SPEED
        )
        if peer
        else None,
    )


def result(*rows: Row) -> Result:
    model = ModelResult(
        name="net",
        title="a net",
        calibration_samples=512,
        evaluation_samples=10_000,
        float_accuracy=proportion(9120, 10_000),
        float_latency_s={"onnxruntime": 2e-4},
        float_bytes={"onnxruntime": 320_000},
        rows=rows,
    )
    return Result(
        date="2026-11-26", processor="a processor", cores=2, python="3.11.7", quick=False,
        versions={"edgewright": "0.1.0"}, models=(model,),
    )  # fmt: skip


def test_ours_is_behind_only_where_the_interval_excludes_nought() -> None:
    assert accuracy_verdict(difference(-0.002)) == "behind"
    assert accuracy_verdict(difference(-0.0005)) == "level"
    assert accuracy_verdict(difference(0.002)) == "ahead"


def test_noise_alone_calls_nobody_slower() -> None:
    noisy = ratio([1.0, 1.3, 0.9], [1.0, 1.0, 1.0])
    assert (noisy.value, noisy.low, noisy.high) == (1.0, 0.9, 1.3)
    assert speed_verdict(noisy) == "level"
    assert speed_verdict(Ratio(value=1.02, low=1.01, high=1.03)) == "level"
    assert speed_verdict(Ratio(value=1.2, low=1.1, high=1.3)) == "behind"
    assert speed_verdict(Ratio(value=0.8, low=0.7, high=0.9)) == "ahead"


def test_verdict_on_accuracy_is_of_the_same_samples() -> None:
    # Ours loses 100 samples that the peer has and wins none: 1 point, far outside the interval.
    peer = np.ones(10_000, bool)
    ours = peer.copy()
    ours[:100] = False
    assert accuracy_verdict(paired_difference_of(peer, ours)) == "behind"


def test_table_names_every_peer_that_ours_is_behind_and_in_what() -> None:
    slower = Ratio(value=1.5, low=1.4, high=1.6)
    shown = result(
        row("edgewright", "onnx"),
        row("onnxruntime", "minmax", accuracy=0.01),
        row("nncf", "onnx", accuracy=-0.01, time=slower),
        Row(tool="olive", variant="minmax", failure="ValueError: a | b"),
    )
    assert [(r.name, where) for r, where in behind(shown.models[0])] == [("nncf onnx", ("accuracy", "speed"))]
    text = markdown(shown, "picture.png")
    assert "Ours is behind: nncf onnx in accuracy and speed." in text
    assert "failed: ValueError: a \\| b" in text
    assert "**edgewright onnx**" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {len(COLUMNS) + 1}


def test_table_says_so_where_ours_is_behind_nobody() -> None:
    text = markdown(result(row("edgewright", "onnx"), row("onnxruntime", "minmax", accuracy=-5e-4)), "p.png")
    assert "Ours is behind none of the 1 that ran." in text
    assert "Lower, but within the interval, points: onnxruntime minmax -0.05." in text
    assert "slower than the float model" not in text


def test_table_says_so_where_our_int8_is_slower_than_float() -> None:
    slow = row("edgewright", "tflite").model_copy(update={"speed_up": Ratio(value=0.16, low=0.1, high=0.2)})
    assert "edgewright tflite is slower than the float model" in markdown(result(slow), "picture.png")


def test_result_survives_its_json_and_is_drawn(tmp_path: Path) -> None:
    written = result(row("edgewright", "onnx"), row("onnxruntime", "minmax"))
    assert Result.model_validate_json(written.model_dump_json(exclude_none=True)) == written
    draw(written, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_every_tool_has_its_script_and_its_pins() -> None:
    for variant in VARIANTS:
        if variant.tool != "edgewright":
            assert (PEERS / f"{variant.script}.py").is_file()
            assert (PEERS.parent / "requirements" / f"{variant.environment}.txt").is_file()
    assert all(any(v.suits(model) for v in VARIANTS if v.tool == "edgewright") for model in MODELS.values())


def test_step_that_fails_says_why_and_one_that_hangs_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    usage = run_step([sys.executable, "-c", "b'x' * 200_000_000"], log)
    assert usage.peak_rss_bytes > 200_000_000
    with pytest.raises(StepFailedError, match=r"^ValueError: too wide$"):
        run_step([sys.executable, "-c", "raise ValueError('too wide')"], log)
    with pytest.raises(StepFailedError, match="took too long"):
        run_step([sys.executable, "-c", "import time; time.sleep(60)"], log, timeout_seconds=0.3)
    with pytest.raises(StepFailedError, match="SIGKILL"):
        run_step([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], log)
