"""`edgewright fleet drift`, the real command, on a store that a hub wrote from payloads as devices write them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from conftest import tiny_golden, tiny_manifest, tiny_onnx
from edgewright.artifact.layout import Layout
from edgewright.artifact.manifest import DriftReference
from edgewright.artifact.release import publish, put_artifact
from edgewright.contract import to_json
from edgewright.telemetry import names
from edgewright.telemetry.sketch import ChannelSketch, DataSketch, Moments
from edgewright_agent.exporter import Exporter, model_attributes
from edgewright_fleet.hub.pages import Pages
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.hub.view import FleetView
from fleet.hub.conftest import release, reported

MIX, OTHER = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.3, 0.3])
STILL = ChannelSketch(level=Moments(mean=0.5, std=0.1), spread=Moments(mean=0.2, std=0.1))


def sketch_of(counts: np.ndarray) -> DataSketch:
    samples = int(counts.sum())
    return DataSketch(
        samples=samples,
        classes=tuple(counts.tolist()),
        confidence=(0,) * 12 + (samples,),
        inputs={"x": (STILL,)},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five devices whose answers shift after five hours, three that stay, one of another profile."""
    path, chance = tmp_path_factory.mktemp("hub") / "hub.sqlite", np.random.default_rng(1)
    with closing(HubStore(path, "kiosks")) as kept:
        view = FleetView("kiosks", kept.seen)
        for number in range(9):
            name, profile = f"d{number}", "raspberry-pi-5" if number < 8 else "gateway"
            report = reported(name, profile=profile)
            report = report.replace(b'"labels":{}', b'"labels":{"cluster":"c%d"}' % (number % 2))
            kept.keep(view.take(name, "reported", report, 0.0))
            exporter, model = (
                Exporter(fleet="kiosks", device=name, profile=profile, boot="b"),
                model_attributes(release()),
            )
            for step in range(100):
                counts = chance.multinomial(1200, OTHER if number < 5 and step >= 60 else MIX)
                text = to_json(sketch_of(counts)).decode()
                exporter.add(
                    names.DRIFT_SAMPLES, "{inference}", 1200, {names.DRIFT_SKETCH: text}, model=model
                )
                kept.keep(view.take(name, "metrics", exporter.collect(), 300.0 * (step + 1)))
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgewright_cli.main", "fleet", "drift", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def groups(result: subprocess.CompletedProcess[str]) -> dict[str, tuple[int, int]]:
    assert result.returncode == 0, result.stderr
    return {g["group"]: (g["devices"], g["drifting"]) for g in json.loads(result.stdout)["groups"]}


def test_table_says_how_many_devices_of_each_profile_drift(store: Path) -> None:
    said = run("--store", store).stdout
    row = next(line for line in said.splitlines() if "raspberry-pi-5" in line).split()
    assert row[:6] == ["raspberry-pi-5", "net", "8", "8", "5", "62%"]
    assert "1970-01-01 05:00 UTC" in said and "classes 5" in said


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("profile", {"raspberry-pi-5": (8, 5), "gateway": (1, 0)}),
        ("release", {"net:1.0.0": (9, 5)}),
        ("cluster", {"c0": (5, 3), "c1": (4, 2)}),
        ("floor", {"–": (9, 5)}),
    ],
)
def test_groups_are_by_profile_release_or_label(
    store: Path, by: str, expected: dict[str, Sequence[int]]
) -> None:
    assert groups(run("--store", store, "--by", by, "--json")) == expected


def test_json_names_the_devices_that_changed_with_their_evidence(store: Path) -> None:
    devices = json.loads(run("--store", store, "--json").stdout)["devices"]
    assert [d["device"] for d in devices] == ["d0", "d1", "d2", "d3", "d4"]
    assert all(d["since_s"] == pytest.approx(18000, abs=301) for d in devices)
    assert all(d["changes"][0]["evidence"] > 12 for d in devices)


def test_picture_is_one_page_that_needs_nothing_else(store: Path, tmp_path: Path) -> None:
    page = tmp_path / "drift.html"
    assert run("--store", store, "--picture", page).returncode == 0
    text = page.read_text()
    assert text.count("<svg") == 4 and "5 of 8 settled devices drift" in text
    assert "<script" not in text and "src=" not in text and "href=" not in text


def test_a_label_with_markup_in_it_is_text_in_the_picture(store: Path, tmp_path: Path) -> None:
    assert run("--store", store, "--by", "<b>x</b>", "--picture", tmp_path / "p.html").returncode == 0
    assert "<b>x" not in (tmp_path / "p.html").read_text()


def test_a_larger_least_index_calls_less_drift(store: Path) -> None:
    assert groups(run("--store", store, "--json", "--least-psi", 0.5))["raspberry-pi-5"] == (8, 0)


def test_against_the_data_of_the_conversion_devices_drift_that_never_were_like_it(
    store: Path, tmp_path: Path
) -> None:
    layout, counts = Layout.create(tmp_path / "registry"), np.random.default_rng(2).multinomial(2000, OTHER)
    manifest = tiny_manifest(tiny_onnx(), tiny_golden()).model_copy(
        update={
            "name": "net", "version": "1.0.0", "profile": "raspberry-pi-5",
            "drift_reference": DriftReference(data="evaluation", sketch=sketch_of(counts)),
        }
    )  # fmt: skip
    publish(layout, "net", "1.0.0", [put_artifact(layout, manifest, tiny_onnx(), tiny_golden())])
    against = f"oci:{tmp_path / 'registry'}:net:1.0.0"
    assert groups(run("--store", store, "--json", "--against", against)) == {"raspberry-pi-5": (8, 3)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--store", "nothing.sqlite"), "does not exist"),
        (("--store", __file__), "not a database"),
        (("--block", "week"), "week"),
        (("--device-years", "0"), "0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: Sequence[str], said: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2 and said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_empty_store_is_an_empty_table_and_a_page_that_says_so(tmp_path: Path) -> None:
    HubStore(tmp_path / "hub.sqlite", "kiosks").close()
    assert groups(run("--store", tmp_path / "hub.sqlite", "--json", "--picture", tmp_path / "p.html")) == {}
    assert "No device has sent a sketch" in (tmp_path / "p.html").read_text()


def test_a_device_s_page_says_that_its_data_drifts(store: Path) -> None:
    with closing(HubStore(store, "kiosks")) as kept:
        view = FleetView("kiosks", kept.seen)
        view.restore(kept.devices(), 0.0)
        pages = Pages(view, threading.Lock(), store, None)
        frame = {
            "path": "",
            "holder": None,
            "can_log_in": False,
            "connected": True,
            "may_write": False,
            "now_s": 0.0,
        }
        assert "drifts since 1970-01-01 05:00" in pages.device(frame, 30_000.0, "d1", {"range": "24h"})
        quiet = pages.device(frame, 30_000.0, "d6", {"range": "24h"})
        assert "as before" in quiet and "Distance of its answers" in quiet
