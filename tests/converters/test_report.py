from __future__ import annotations

import html
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.errors import StorageError
from edgewright.figures import costs, left_in_float
from edgewright_converters.evidence import Evidence, FileErrors
from edgewright_converters.layer_error import LayerError
from edgewright_converters.pipeline import ConversionReport, convert
from edgewright_converters.precision_choice import Tried
from edgewright_converters.report import page
from edgewright_converters.report.candidates import candidates, front, tried
from edgewright_converters.report.layers import in_order, layers
from edgewright_converters.report.scatter import labels, round_step
from edgewright_converters.rungs import climbed
from edgewright_converters.trial import Trial

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((24, 2, 12, 12)).astype(np.float32)
LABELS = RNG.integers(0, 4, len(IMAGES))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConversionReport, str]:
    """A conversion to both formats that climbs every rung for want of decibels, and its page."""
    folder = tmp_path_factory.mktemp("report")
    report = convert(
        "toy_models:small",
        calibration={"x": IMAGES},
        evaluation={"x": IMAGES, "y": LABELS},
        profile=["raspberry-pi-5", "jetson-orin-nano"],
        output=folder / "out",
        min_sqnr=100.0,
        precision="int8",
        report=folder / "pages" / "page.html",
    )
    return report, (folder / "pages" / "page.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_page_asks_nothing_of_anyone_else(made: Any) -> None:
    _, text = made
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\(|<script|<link", text)
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


@pytest.mark.slow
def test_page_names_every_layer_with_its_error_range_and_grid(made: Any) -> None:
    report, text = made
    activations = report.evidence.activations
    assert len(activations) >= 6
    for activation in activations:
        assert text.count(f"<span>{activation.name} <span class=soft>{activation.operator}</span>") == 2
        assert activation.observed[0] <= activation.observed[1] and activation.method in text
    digests = {manifest.model_digest for manifest in report.artifacts}
    assert {file.digest for file in report.evidence.files} == digests and len(digests) == 3
    for file in report.evidence.files:
        assert file.layers and all(html.escape(layer.name) in text for layer in file.layers)
        # Both formats' activations are known by the names of the one graph.
        assert len({layer.name for layer in file.layers} & {a.name for a in activations}) >= 5


@pytest.mark.slow
def test_page_shows_every_attempt_and_says_what_its_figures_are(made: Any) -> None:
    report, text = made
    assert {attempt.rung for attempt in report.attempts} == {rung.name for rung in climbed("standard")}
    for number, attempt in enumerate(report.attempts, 1):
        assert f"<b>{number} {attempt.rung}</b>" in text
        assert f"<td>{number}<td>{attempt.rung}, onnx int8" in text
    for words in ("24 calibration samples", "24 evaluation samples", "measured on this host", "predicted"):
        assert words in text
    assert text.count("<svg") == 4 and text.count("class=front") == 4


@pytest.mark.slow
def test_page_has_the_verdict_and_every_check_of_every_artifact_in_the_gates_words(made: Any) -> None:
    report, text = made
    assert f"<span class={report.verdict}>{report.verdict}</span></h1>" in text
    assert report.verdict == "fail" and report.output is None and "nothing was written" in text
    for manifest in report.artifacts:
        assert f"{manifest.profile}, {manifest.format}: " in text
        for check in manifest.gate.checks:
            assert html.escape(check.says) in text and f"[{check.how}]" in text
        assert html.escape(costs(manifest.gate)) in text
        assert all(html.escape(line) in text for line in left_in_float(manifest.gate))


@pytest.mark.slow
def test_page_of_a_model_without_an_onnx_form_or_evidence_is_still_a_page(made: Any) -> None:
    report, _ = made
    files = tuple(file for file in report.evidence.files if file.format == "tflite")
    bare = replace(report, attempts=(), evidence=Evidence((), files))
    assert "no ONNX form" in page(bare) and "Error of each layer" in page(bare)
    assert "Error of each layer" not in page(replace(bare, evidence=None))


@pytest.mark.parametrize("path", ["data.npz/page.html", "."])
def test_path_that_cannot_be_written_is_found_before_the_model_is_even_read(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / "data.npz").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        convert("nowhere.pt2", calibration={"x": IMAGES}, profile="raspberry-pi-5", output=tmp_path / "out",
                report=tmp_path / path)  # fmt: skip
    assert "\n" not in str(caught.value)


def test_precisions_tried_after_the_ladder_are_candidates_by_letter() -> None:
    choices = (
        Tried("INT8", Trial("tflite", "int8", 20.0, 1, 10, 1000, 2e-3, 1e-3), False),
        Tried("INT8 alone", Trial("tflite", "int8", 20.0, 1, 10, 1000, 1e-3, 1e-3), True),
        Tried("float32", Trial("tflite", "float32", 200.0, 0, 10, 4000, 1e-3, 1e-3), False),
    )
    first, second, third = tried((), choices, (), "generated inputs")
    assert (first.label, first.what) == ("a", "precision: INT8, tflite int8, not kept")
    assert (first.agreement, first.data) == (0.9, "on 10 generated inputs")
    assert third.sqnr_db == math.inf and [one.kind for one in (first, second, third)] == [
        "open",
        "kept",
        "open",
    ]
    text = candidates((), choices, (), "generated inputs")
    assert "<td>b<td>precision: INT8 alone, tflite int8<" in text
    assert "generated inputs" in text and "calibration" not in text


def test_name_of_a_layer_is_text_and_not_markup() -> None:
    file = FileErrors("sha256:0", "onnx", "int8", (LayerError("<b>&", 20.0, 0.0),), 1)
    text = layers(Evidence((), (file,)), {"sha256:0": "p"})
    assert "&lt;b&gt;&amp;" in text and "<b>" not in text


def test_layers_of_several_files_keep_their_order() -> None:
    assert in_order([["a", "b", "d"], ["a", "b", "c", "d", "e"], ["z", "a"]]) == [
        "z",
        "a",
        "b",
        "c",
        "d",
        "e",
    ]
    assert in_order([[], ["a"]]) == ["a"]


def test_front_holds_what_no_other_beats_in_both() -> None:
    points = [(2.0, 10.0), (1.0, 5.0), (1.0, 7.0), (3.0, 9.0), (4.0, float("inf")), (5.0, 11.0)]
    assert front(points) == [(1.0, 7.0), (2.0, 10.0), (4.0, float("inf"))]
    assert front([]) == []


def test_labels_keep_apart_and_points_on_one_spot_share_one() -> None:
    drawn = labels(["1", "2", "3", "4"], [(100, 50), (100, 50), (100, 58), (101, 64)])
    texts = [line for line in drawn if line.startswith("<text")]
    assert [re.findall(r">(.*)<", line) for line in texts] == [["1, 2"], ["3"], ["4"]]
    places = [float(y) for line in texts for y in re.findall(r" y=([\d.]+)", line)]
    assert all(lower - upper >= 12 for upper, lower in pairwise(places))


def test_label_covers_no_other_point() -> None:
    drawn = labels(["one", "two"], [(100, 50), (115, 50)])
    texts = [line for line in drawn if line.startswith("<text")]
    heights = {re.findall(r">(.*)<", t)[0]: float(re.findall(r" y=([\d.]+)", t)[0]) for t in texts}
    assert heights["two"] == 54 and heights["one"] >= 66


def test_ticks_lie_on_round_numbers() -> None:
    assert [round_step(x) for x in (0.011, 0.2, 3, 7)] == pytest.approx([0.02, 0.2, 5, 10])
