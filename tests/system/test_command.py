from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import PROFILE, free_port
from edgewright.artifact.layout import Layout
from edgewright_cli.progress import about


def edgewright(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    command = [sys.executable, "-m", "edgewright_cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, check=False)


CONVERT = ("convert", "m:f", "--calibration", "no.npz", "--output", "o", "--profile", PROFILE)


COMMANDS = ("", "profile", "convert", "inspect", "bench", "agent", "fleet", "demo", "trust")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = edgewright(*command.split(), "--help")
    assert done.returncode == 0
    assert "edgewright " in done.stdout


def test_profiles_are_listed_for_people_and_scripts() -> None:
    assert "raspberry-pi-5" in edgewright("profile", "list").stdout
    names = {entry["name"] for entry in json.loads(edgewright("profile", "list", "--json").stdout)}
    assert PROFILE in names
    assert json.loads(edgewright("profile", "detect", "--json").stdout)["cores"]


def test_artifact_is_inspected_and_measured(registry: Layout) -> None:
    (entry,) = json.loads(edgewright("inspect", str(registry.root), "--json").stdout)
    assert entry["manifest"]["name"] == "tiny"
    measured = json.loads(edgewright("bench", str(registry.root), "--seconds", "0.05", "--json").stdout)
    assert measured["how"] == "measured on host"
    assert 0 < measured["p50_s"] <= measured["p99_s"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("inspect", "nowhere"), "nowhere"),
        (("bench", "nowhere.onnx"), "does not exist"),
        (("bench", "text.onnx"), "not a model that ONNX Runtime can load"),
        (("bench", "text.tflite"), "not a model that"),
        (("profile", "show", "rasberry-pi-5"), "did you mean 'raspberry-pi-5'"),
        (("agent", "run", "--config", "nowhere.toml"), "nowhere.toml: does not exist"),
        (("fleet", "rollout", "start", "nowhere.yaml"), "nowhere.yaml: does not exist"),
        (("fleet", "rollout", "status", "night"), "no rollout 'night'"),
        (("fleet", "devices", "--fleet", "f", "--broker", "127.0.0.1:{port}"), "cannot be reached"),
        (("fleet", "devices", "--fleet", "f", "--broker", "here"), "write HOST:PORT"),
        (("convert", "m:f", "--calibration", "no.npz", "--output", "o"), "--profile"),
        (("convert", "--explain", "--effort", "some"), "--effort"),
        ((*CONVERT, "--report", "text.onnx/page.html"), "text.onnx/page.html: a part of the path is a file"),
        ((*CONVERT, "--report", "."), "is a folder"),
        (("convert", "leaves:f", *CONVERT[2:]), "leaves:f: importing it fails (SystemExit: 0)"),
        ((*CONVERT, "--output", "text.onnx"), "text.onnx: is a file, not a folder"),
        ((*CONVERT, "--name", "a b"), "'a b' cannot be the name of a release; use"),
        ((*CONVERT, "--version", "../1"), "'../1' cannot be the version of a release; use"),
        (("nonsense",), "nonsense"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "text.tflite").write_text("not a model")
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    port = str(free_port())
    done = edgewright(*(a.replace("{port}", port) for a in arguments), folder=tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgewright: ")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and problem in lines[0], done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_corrupt_artifact_is_named(registry: Layout) -> None:
    blob = max((registry.root / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(bytes(data))
    done = edgewright("inspect", str(registry.root))
    assert done.returncode == 2
    assert blob.name in done.stderr and "digest does not match" in done.stderr


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier, calibration data, and labels that the float model has right."""
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.py").write_text(
        "import torch\nprint('a module that speaks')\ndef net():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))\n"
        "def regression():\n    return torch.nn.Sequential(net(), torch.nn.Unflatten(1, (1, 3)))\n"
    )
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    np.savez(folder / "data.npz", x=x[:32])
    np.savez(folder / "test.npz", x=x[32:])
    return folder


def convert(net: Path, output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return edgewright(
        "convert", arguments[0], "--calibration", "data.npz", "--profile", PROFILE, "--format", "onnx",
        "--output", str(output), *arguments[1:], folder=net,
    )  # fmt: skip


@pytest.mark.slow
def test_model_whose_accuracy_is_open_is_written_with_a_warning(net: Path, tmp_path: Path) -> None:
    done = convert(net, tmp_path / "out", "net:net", "--json")
    assert done.returncode == 0, done.stderr
    assert "warning: accuracy could not be decided" in done.stderr
    assert "a module that speaks" in done.stderr
    assert "━" not in done.stderr  # no bar where there is no terminal, but lines
    document = json.loads(done.stdout)
    (artifact,) = document["artifacts"]
    assert document["verdict"] == artifact["gate"]["verdict"] == "inconclusive"
    assert artifact["accuracy"]["sqnr_db"]["output"] > 20
    assert document["attempts"][0]["rung"] == "min-max" and document["attempts"][0]["kept"]
    shown = edgewright("inspect", str(tmp_path / "out")).stdout
    assert "INCONCLUSIVE" in shown and "give --evaluation" in shown
    strict = convert(net, tmp_path / "strict", "net:net", "--strict")
    assert strict.returncode == 3
    assert (tmp_path / "strict" / "index.json").exists()


@pytest.mark.slow
def test_model_that_fails_the_gate_is_not_written_unless_kept(net: Path, tmp_path: Path) -> None:
    done = convert(net, tmp_path / "out", "net:net", "--min-sqnr", "150")
    assert done.returncode == 3, done.stderr
    assert "FAIL: nothing was written" in done.stdout and "150 dB" in done.stdout
    assert not (tmp_path / "out").exists()
    kept = convert(net, tmp_path / "out", "net:net", "--min-sqnr", "150", "--keep-failed", "--json")
    assert kept.returncode == 3
    (entry,) = json.loads(edgewright("inspect", str(tmp_path / "out"), "--json").stdout)
    assert entry["manifest"]["gate"]["verdict"] == "fail"


@pytest.mark.slow
def test_model_that_passes_the_gate_exits_with_0_even_when_strict(net: Path, tmp_path: Path) -> None:
    asked = ("net:regression", "--min-sqnr", "15", "--strict", "--evaluation")
    done = convert(net, tmp_path / "out", *asked, "test.npz")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: written to" in done.stdout
    # Calibration data under another option's name proves nothing.
    assert convert(net, tmp_path / "again", *asked, "data.npz").returncode == 3


def test_limit_that_makes_no_sense_is_bad_input(net: Path, tmp_path: Path) -> None:
    done = convert(net, tmp_path / "out", "net:net", "--max-drop", "-1")
    assert done.returncode == 2 and "--max-drop" in done.stderr


def test_time_left_claims_no_more_than_an_estimate_can() -> None:
    words = [about(left) for left in (-3.0, 4.0, 41.0, 89.0, 100.0, 200.0)]
    assert words[:2] == ["a few seconds left"] * 2
    assert words[2:] == ["about 45 s left", "about 90 s left", "about 2 min left", "about 3 min left"]


def test_ladder_is_explained_without_a_model_to_convert() -> None:
    from edgewright_converters.rungs import DATA_FREE, RUNGS

    shown = edgewright("convert", "--explain")
    assert shown.returncode == 0, shown.stderr
    for rung in RUNGS:
        assert rung.name in shown.stdout and rung.what in shown.stdout and rung.cost in shown.stdout
    assert "quick: starts no rung after 15 s" in shown.stdout
    for rung in DATA_FREE:
        assert rung.name in shown.stdout and rung.cost in shown.stdout
    document = json.loads(edgewright("convert", "--json", "--explain").stdout)
    assert [rung["rung"] for rung in document["rungs"]] == [rung.name for rung in RUNGS]
    assert document["rungs"][0]["efforts"] == ["quick", "standard", "thorough"]
    assert all(rung["typical_seconds"] > 0 for rung in document["rungs"])
    assert [rung["rung"] for rung in document["without_calibration"]] == [rung.name for rung in DATA_FREE]
    assert document["efforts"]["thorough"]["seconds"] == 900.0
    quick = json.loads(edgewright("convert", "--explain", "--effort", "quick", "--json").stdout)
    assert {rung["rung"] for rung in quick["rungs"]} == {r.name for r in RUNGS if r.effort == "quick"}


@pytest.mark.slow
def test_report_is_written_and_progress_says_about_how_long_is_left(net: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = convert(net, tmp_path / "out", "net:net", "--effort", "quick", "--report", str(page))
    assert done.returncode == 0, done.stderr
    assert f"Report: {page}" in done.stdout
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    steps = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert re.match(r"\[1/(\d+)\] reading the data \(about .* left\)", steps[0])
    assert all(line.endswith(" left)") for line in steps)
    assert any("looking at every layer for the report" in line for line in steps)
