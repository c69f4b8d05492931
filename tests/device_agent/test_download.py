"""A registry that goes away while a release is downloaded, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgewright_agent.download as download_module
import edgewright_agent.update as update_module
from device_agent.updater_at_work import Device, prove_here
from edgewright.artifact import layout as layout_module
from edgewright.artifact.layout import Layout


@pytest.fixture
def device(tmp_path: Path, registry: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Device]]:
    monkeypatch.setattr(update_module, "prove_in_process_of_its_own", prove_here)
    monkeypatch.setattr(update_module, "WATCH_POLL_S", 0.002)
    monkeypatch.setattr(download_module, "FIRST_RETRY_S", 0.01)
    made: list[Device] = []

    def make(**settings: Any) -> Device:
        made.append(Device(tmp_path, registry, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def copies(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[Path], None] = lambda source: None
) -> list[Path]:
    """Every blob that is copied from now on, noted before its copy begins."""
    copied: list[Path] = []
    real = Layout.copy_from

    def copy_from(self: Layout, other: Layout, descriptor: Any) -> None:
        path = self.path_of(descriptor.digest)
        if not path.exists():
            before(other.root)
            copied.append(path)
        real(self, other, descriptor)

    monkeypatch.setattr(layout_module.Layout, "copy_from", copy_from)
    return copied


def test_a_download_whose_link_breaks_off_goes_on_by_itself_with_what_it_has(
    device: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = device(download_retry_s=60)
    gone = registry.root.with_name("gone")
    copied: list[Path] = []

    def breaks_at_the_third_blob(source: Path) -> None:
        if len(copied) == 2 and one.reason is None:
            source.rename(gone)

    def comes_back(phase: str) -> None:
        if gone.exists() and one.reason is not None:
            said.append(one.reason)
            gone.rename(registry.root)

    said: list[str] = []
    release = registry.release("1.0.0")
    copied = copies(monkeypatch, breaks_at_the_third_blob)
    one.on_phase = comes_back
    assert one.take(release) == "committed"
    assert one.phases[:3] == ["downloading", "downloading", "verifying"]
    (reason,) = said
    assert reason.endswith("a part of the artifact is missing; fetch it again; it is tried again")
    # Four blobs: the third was begun twice, the two before it once.
    assert len(set(copied)) == 4
    assert [copied.count(path) for path in dict.fromkeys(copied)] == [1, 1, 2, 1]


def test_a_registry_that_stays_away_fails_the_update_and_the_same_wish_is_taken_once_it_is_back(
    device: Any, registry: Any
) -> None:
    one = device(download_retry_s=0.05)
    assert one.take(registry.release("1.0.0")) == "committed"
    newer = registry.release("1.1.0")
    gone = registry.root.with_name("gone")
    registry.root.rename(gone)
    begun = time.monotonic()
    assert one.take(newer, "r2") == "failed"
    assert time.monotonic() - begun >= 0.05
    assert one.phases.count("downloading") >= 2
    assert "is not an artifact or registry folder" in one.reason
    assert (one.version, one.updater._slots.state.failure) == ("1.0.0", None)
    gone.rename(registry.root)
    assert one.take(newer, "r2") == "committed"
    assert one.version == "1.1.0"


@pytest.mark.parametrize("newer_is_the_one_that_serves", [False, True])
def test_a_newer_wish_ends_the_wait_for_a_registry(
    device: Any, registry: Any, newer_is_the_one_that_serves: bool
) -> None:
    one = device(download_retry_s=600)
    serves, wanted, better = (registry.release(version) for version in ("1.0.0", "1.1.0", "1.2.0"))
    assert one.take(serves) == "committed"
    gone = registry.root.with_name("gone")
    registry.root.rename(gone)
    one.overtaken = lambda: one.reason is not None
    assert one.take(wanted, "overtaken") == "downloading"
    assert (one.version, one.updater._slots.state.failure) == ("1.0.0", None)
    gone.rename(registry.root)
    one.overtaken = lambda: False
    assert one.take(serves if newer_is_the_one_that_serves else better, "newer") == "committed"
    assert (one.version, one.reason) == ("1.0.0" if newer_is_the_one_that_serves else "1.2.0", None)


def test_what_is_wrong_is_not_asked_for_again(device: Any, registry: Any) -> None:
    one = device(download_retry_s=600)
    corrupt = registry.release("1.0.0")
    registry.flip_a_byte_of_the_model("1.0.0")
    assert one.take(corrupt) == "failed"
    assert one.phases == ["downloading", "failed"]
    assert one.updater._slots.state.failure.desired.release == corrupt
    other = registry.release("1.1.0", profile="raspberry-pi-5")
    assert one.take(other, "r2") == "failed"
    assert "no artifact for profile 'x86-64-gateway'" in one.reason
