"""`edgewright fleet samples collect`, the real command, on a release as `convert` writes it: many artifacts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edgewright.artifact.layout import Layout
from fleet.retraining.field_data.stored_samples import labels, put
from fleet.retraining.promotion.classifiers import LABELS, put_classifier


def collect(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "edgewright_cli.main",
        "fleet",
        "samples",
        "collect",
        "--store",
        "samples",
    ]
    return subprocess.run(
        [*command, "--labels", "labels.csv", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_classes_of_a_release_are_those_of_all_its_artifacts(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    rows = [
        f"{put(tmp_path / 'samples', number, classes=4)},{LABELS[number % 4]},anna" for number in range(8)
    ]
    labels(tmp_path, rows)
    layout = Layout.create(tmp_path / "registry")
    put_classifier(layout, "1.0.0", [1, 0, 0, 0], profiles=("raspberry-pi-5", "x86-64-gateway"))
    done = collect(tmp_path, "--model", "oci:registry:net:1.0.0", "--output", "one")
    assert done.returncode == 0, done.stderr
    narrowed = ("--model", "oci:registry:net:1.0.0", "--profile")
    assert collect(tmp_path, *narrowed, "raspberry-pi-5", "--output", "two").returncode == 0
    none = collect(tmp_path, *narrowed, "jetson-orin-nano", "--output", "three")
    assert none.returncode == 2 and "holds no artifact for 'jetson-orin-nano'" in none.stderr
    put_classifier(layout, "2.0.0", [1, 0, 0, 0], labels=("a", "b", "c", "d"))
    several = collect(tmp_path, "--model", "registry", "--output", "four")
    assert several.returncode == 2 and "holds artifacts whose classes differ" in several.stderr
    assert several.stderr.count("\n") == 1 and not (tmp_path / "four").exists()
