from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import tiny_golden, tiny_manifest, tiny_onnx
from edgewright.active_slot import SlotContent
from edgewright.artifact.manifest import ArtifactManifest, Classification, DriftReference
from edgewright.field_sample import unpack
from edgewright.object_store import open_store
from edgewright.telemetry.names import SAMPLE_FATE, SAMPLES
from edgewright.telemetry.otlp import from_bytes, read_attributes
from edgewright.telemetry.sketch import DataSketch
from edgewright.telemetry.sketcher import Sketcher
from edgewright.twin import ReleaseReference
from edgewright_agent.config import AgentConfig
from edgewright_agent.exporter import Exporter
from edgewright_agent.sampling.hardness import Examiner, reason_for
from edgewright_agent.sampling.offers import Offers
from edgewright_agent.sampling.sampler import Sampler
from edgewright_agent.sampling.threads import Sampling
from edgewright_agent.sampling.uploads import Uploads
from edgewright_agent.sampling.waiting import WaitingSamples
from edgewright_agent.sampling_config import SamplingConfig

DIGEST = f"sha256:{'1' * 64}"
CONTENT = SlotContent(
    slot="a", release=ReleaseReference(name="tiny", version="1.0.0", digest=DIGEST), artifact=DIGEST
)
LABELS = ("cat", "dog", "person", "nothing")
Arrays = list[np.ndarray[Any, Any]]


def reference() -> DataSketch:
    about = manifest(None)
    sketcher = Sketcher(about.inputs, about.outputs, "y")
    for level in range(40, 60):
        sketcher.add(sketcher.glimpse(*inference(level=level)))
    sketch = sketcher.take()
    assert sketch is not None
    return sketch


def manifest(sketch: DataSketch | None, **changes: object) -> ArtifactManifest:
    known = None if sketch is None else DriftReference(data="evaluation", sketch=sketch)
    return tiny_manifest(tiny_onnx(), tiny_golden()).model_copy(
        update={
            "postprocessing": Classification(output="y"),
            "labels": LABELS,
            "drift_reference": known,
            **changes,
        }
    )


def inference(*, level: int = 50, top: int = 0, lead: int = 60, second: int = 1) -> tuple[Arrays, Arrays]:
    """Of `tiny`: its scores are logits of half a unit."""
    inputs = np.array([[level - 3, level - 1, level + 1, level + 3]], np.uint8)
    outputs = np.full((1, 4), 20, np.uint8)
    outputs[0, top] = 20 + lead
    outputs[0, second] = max(outputs[0, second], 20)
    return [inputs], [outputs]


EASY, UNSURE, DRIFTED = inference(), inference(lead=1), inference(level=200)


class Site:
    """A sampler with everything that it needs; chance is always on its side unless it is told otherwise."""

    def __init__(
        self, folder: Path, about: ArtifactManifest, *, draws: list[float] | None = None, **keys: Any
    ):
        self.folder = folder
        settings = SamplingConfig(**{"store": "input", "uniform_share": 0.0, **keys})
        config = AgentConfig(
            fleet="plant",
            device="line-3",
            profile="x86-64-gateway",
            registry=folder,
            state_dir=folder / "state",
            labels={"site": "lab"},
            sampling=settings,
        )
        self.waiting = WaitingSamples(config.state_dir / "samples", settings.bytes_on_disk)
        self.settings = settings
        self.offers = Offers(CONTENT, about)
        chance = iter(draws) if draws is not None else None
        self.sampler = Sampler(
            config,
            settings,
            "x86-64-gateway",
            lambda: self.offers,
            self.waiting,
            draw=lambda: next(chance) if chance is not None else 0.0,
        )
        self.now_s = 1_800_000_000.0

    def see(self, seen: tuple[Arrays, Arrays], times: int = 1, *, every_s: float = 600.0) -> None:
        for _ in range(times):
            self.now_s += every_s
            self.offers.put(*seen)
            self.sampler.look(self.now_s)

    def files(self) -> list[Path]:
        folder = self.folder / "state" / "samples"
        return sorted(folder.glob("*.sample")) if folder.exists() else []

    def samples(self) -> list[Any]:
        return [unpack(path.read_bytes(), str(path)) for path in self.files()]


def test_only_hard_inputs_are_kept_each_with_why(tmp_path: Path) -> None:
    site = Site(tmp_path, manifest(reference()))
    for seen in (EASY, UNSURE, inference(lead=3), DRIFTED, EASY):
        site.see(seen)
    kept = site.samples()
    assert [sample.reason for sample, _ in kept] == ["low-confidence", "low-confidence", "drifted-input"]
    sample, (stored,) = kept[0]
    assert np.array_equal(stored, UNSURE[0][0])
    assert (sample.top, sample.label, sample.classes, sample.labels) == (0, "cat", 4, {"site": "lab"})
    assert sample.confidence == pytest.approx(np.exp(0.5) / (np.exp(0.5) + 3), rel=1e-6)
    assert sample.margin == pytest.approx((np.exp(0.5) - 1) / (np.exp(0.5) + 3), rel=1e-6)
    assert sample.inclusion_probability == 1.0
    assert kept[2][0].shift > 4
    assert site.files()[0].parent.stat().st_mode & 0o777 == 0o700
    assert abs(sample.captured.timestamp() - site.files()[0].stat().st_mtime) < 60


def test_a_narrow_margin_is_hard_where_the_class_is_likely_enough() -> None:
    outputs = np.array([[60, 59, 20, 20]], np.uint8)
    traits = Examiner(manifest(None)).traits(EASY[0], [outputs])
    assert reason_for(traits, SamplingConfig(confidence_below=0.5, margin_below=0.3)) == "low-margin"
    assert reason_for(traits, SamplingConfig(confidence_below=0.5, margin_below=0.2)) is None


def test_a_model_that_is_no_classifier_and_has_no_reference_gives_uniform_samples_alone(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, manifest(None, postprocessing=None), uniform_share=0.5)
    site.see(UNSURE, 3)
    assert {sample.reason for sample, _ in site.samples()} == {"uniform"}
    assert {sample.confidence for sample, _ in site.samples()} == {None}


def test_chance_decides_by_the_probability_that_goes_with_the_sample(tmp_path: Path) -> None:
    # Of each inference: the draw of the uniform share, then that of the hard one.
    draws = [0.0, 0.99, 0.0, 0.99, 0.99, 0.99, 0.0]
    site = Site(tmp_path, manifest(None), uniform_share=0.5, samples_per_hour=0.5, draws=draws)
    for _ in range(4):
        site.see(UNSURE, every_s=0.001)
    samples = [sample for sample, _ in site.samples()]
    assert [sample.reason for sample in samples] == ["uniform", "low-confidence", "low-confidence"]
    assert [sample.inclusion_probability for sample in samples[:2]] == [1.0, 1.0]
    uniform, hard = np.exp(-1), np.exp(0.5 * 0.5 * 0.25 - 1)
    assert samples[2].inclusion_probability == pytest.approx(1 - (1 - uniform) * (1 - hard), abs=1e-4)


def test_inferences_that_were_not_looked_at_are_in_the_weight(tmp_path: Path) -> None:
    site = Site(tmp_path, manifest(None))
    for _ in range(7):
        site.offers.put(*EASY)
    site.sampler.look(site.now_s)
    for _ in range(5):
        site.offers.put(*UNSURE)
    site.sampler.look(site.now_s)
    # Of the eight since the first that was looked at, the eighth: six easy ones were only counted.
    ((sample, _),) = site.samples()
    assert sample.inclusion_probability == pytest.approx(1 / 7)


@pytest.mark.parametrize("store", ["nothing", "digest"])
def test_what_the_policy_does_not_allow_never_touches_the_disk(store: str, tmp_path: Path) -> None:
    site = Site(tmp_path, manifest(None), store=store)
    mark = bytes([201, 202, 203, 204])
    unsure = ([np.frombuffer(mark, np.uint8).reshape(1, 4)], UNSURE[1])
    site.see(unsure, 5)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(mark not in path.read_bytes() for path in written)
    assert site.sampler.describe()["samples_kept"] == 5
    assert len(site.files()) == (5 if store == "digest" else 0)
    assert written == [] or store == "digest"


def test_a_class_that_the_policy_drops_is_never_kept_nor_counted(tmp_path: Path) -> None:
    site = Site(tmp_path, manifest(None), drop_labels=["person"], uniform_share=0.5)
    site.see(inference(lead=1, top=2), 5)
    assert site.sampler.describe()["samples_kept"] == 0
    site.see(inference(lead=1, top=1, second=0), 5)
    assert {sample.label for sample, _ in site.samples()} == {"dog"}


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"drop_labels": ["face"]}, "no class 'face'"),
        ({"downscale": 2}, "input 'x' is no picture"),
    ],
)
def test_a_policy_that_does_not_fit_the_model_lets_nothing_through_and_says_so_once(
    keys: dict[str, Any], match: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path, manifest(None), **keys)
    site.see(UNSURE, 5)
    assert site.files() == []
    assert len(caplog.records) == 1
    assert match in caplog.text


def test_the_bytes_of_a_day_are_never_exceeded_also_over_restarts(tmp_path: Path) -> None:
    limit = 20_000
    site = Site(tmp_path, manifest(None), bytes_per_day=limit, samples_per_hour=10_000)
    site.now_s -= site.now_s % 86_400
    for _ in range(4):
        site.see(UNSURE, 25, every_s=60.0)
        again = Site(tmp_path, manifest(None), bytes_per_day=limit, samples_per_hour=10_000)
        again.now_s, site = site.now_s, again
    day = sum(path.stat().st_size for path in site.files())
    assert 0.5 * limit < day <= limit
    site.now_s += 86_400
    site.see(UNSURE)
    assert sum(path.stat().st_size for path in site.files()) > day


def test_no_more_waits_on_the_disk_than_allowed(tmp_path: Path) -> None:
    site = Site(tmp_path, manifest(None), bytes_on_disk=5 * 4096)
    site.see(UNSURE, 30)
    assert len(site.files()) == 5
    said = site.sampler.describe()
    assert (said["samples_kept"], said["samples_over_budget"]) == (5, 25)


def test_a_ledger_that_cannot_be_read_counts_as_used_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Site(tmp_path, manifest(None)).see(UNSURE)
    ledger = tmp_path / "state" / "samples" / "budget.json"
    ledger.write_text(ledger.read_text()[:20])
    site = Site(tmp_path, manifest(None))
    assert "counts as used up" in caplog.text
    assert site.sampler.describe()["samples_bytes_today"] == site.settings.bytes_per_day


def test_a_disk_that_takes_nothing_costs_samples_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    site = Site(tmp_path, manifest(None))
    site.see(UNSURE, 4)
    assert site.sampler.describe()["samples_failed"] == 4
    assert len([record for record in caplog.records if "a sample is lost" in record.getMessage()]) == 1


def test_what_was_kept_arrives_in_the_store_once_and_leaves_the_device(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path, manifest(reference()))
    site.see(UNSURE, 3)
    store = open_store(str(tmp_path / "store"))
    uploads = Uploads(store, site.settings, site.waiting, threading.Event())
    assert not uploads.send_waiting()
    assert not uploads.send_waiting()
    assert len([r for r in caplog.records if "samples wait" in r.getMessage()]) == 1
    (tmp_path / "store").mkdir()
    before = Counter(path.read_bytes() for path in site.files())
    assert uploads.send_waiting()
    assert site.files() == []
    keys = [found.key for found in store.objects()]
    assert Counter(store.read(key) for key in keys) == before
    assert all(key.startswith("samples/plant/line-3/") for key in keys)
    assert uploads.sent == 3


def test_a_sample_of_another_version_of_the_agent_holds_up_none_behind_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path, manifest(None))
    site.waiting.make_folder()
    site.waiting.put(b'{"schema": 7}\n', 1.0)
    site.see(UNSURE)
    (tmp_path / "store").mkdir()
    store = open_store(str(tmp_path / "store"))
    assert Uploads(store, site.settings, site.waiting, threading.Event()).send_waiting()
    assert (len(site.files()), len(list(store.objects()))) == (0, 1)
    assert len([record for record in caplog.records if "is removed" in record.getMessage()]) == 1


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        ("22:00-05:00", ["22:00", "23:59", "00:00", "04:59"], ["05:00", "12:00", "21:59"]),
        ("09:30-17:00", ["09:30", "16:59"], ["09:29", "17:00", "00:00"]),
    ],
)
def test_the_hours_of_uploads_may_span_midnight(span: str, inside: list[str], outside: list[str]) -> None:
    settings = SamplingConfig(upload_between=span)
    assert all(settings.may_send(time.fromisoformat(moment)) for moment in inside)
    assert not any(settings.may_send(time.fromisoformat(moment)) for moment in outside)
    assert SamplingConfig().may_send(time(3, 0))


def test_an_upload_keeps_to_its_bandwidth_and_ends_with_the_agent(tmp_path: Path) -> None:
    site = Site(tmp_path, manifest(None), upload_bytes_per_s=4096)
    site.see(UNSURE)
    (tmp_path / "store").mkdir()
    waited: list[float] = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            return super().wait(0)

    stopping = Stopping()
    uploads = Uploads(open_store(str(tmp_path / "store")), site.settings, site.waiting, stopping)
    size = site.files()[0].stat().st_size
    assert uploads.send_waiting()
    assert sum(waited) == pytest.approx(size / 4096)
    site.see(UNSURE)
    stopping.set()
    assert uploads.send_waiting()
    assert len(site.files()) == 1


def test_the_ledger_is_written_before_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, manifest(None))

    class PowerCutError(BaseException):
        pass

    def cut(data: bytes, captured_s: float) -> None:
        raise PowerCutError

    monkeypatch.setattr(site.waiting, "put", cut)
    with pytest.raises(PowerCutError):
        site.see(UNSURE)
    ledger = json.loads((tmp_path / "state" / "samples" / "budget.json").read_text())
    assert ledger["day_bytes"] > 0
    assert site.files() == []


def test_telemetry_counts_what_became_of_samples_once(tmp_path: Path) -> None:
    site = Site(tmp_path, manifest(None), url=str(tmp_path))
    site.see(UNSURE)
    config = AgentConfig(
        fleet="plant",
        device="line-3",
        profile="x86-64-gateway",
        registry=tmp_path,
        state_dir=tmp_path / "state",
        sampling=site.settings,
    )
    sampling = Sampling(config, site.settings, "x86-64-gateway", lambda: None, threading.Event())
    uploads = Uploads(open_store(str(tmp_path)), site.settings, site.waiting, threading.Event())
    vars(sampling).update(_sampler=site.sampler, _uploads=uploads)
    exporter = Exporter(fleet="plant", device="line-3", profile="x86-64-gateway", boot="b")

    def told() -> dict[str, int]:
        sampling.report(exporter)
        (resource,) = from_bytes(exporter.collect()).resource_metrics
        points = [
            p
            for s in resource.scope_metrics
            for m in s.metrics
            if m.name == SAMPLES
            for p in m.sum.data_points
        ]
        return {str(read_attributes(p.attributes)[SAMPLE_FATE]): p.as_int for p in points}

    assert told() == {"kept": 1}
    assert told() == {}
    site.see(UNSURE, 2)
    assert uploads.send_waiting()
    assert told() == {"kept": 2, "sent": 3}
    site.sampler.over_budget += 1
    assert told() == {"over_budget": 1}
