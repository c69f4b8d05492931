"""What a device takes, and what it refuses: all but what was signed by the right keys and is in date."""

from __future__ import annotations

import json
import shutil
import tempfile
import tracemalloc
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import put_tiny
from edgewright.artifact.layout import Layout
from edgewright.artifact.release import open_release_by_digest
from edgewright.errors import EdgewrightError, MissingArtifactError, TrustError
from edgewright.trust.repository import Signing, create
from edgewright.trust.verify import verify_registry, verify_release

LONG_AGO = datetime.now(timezone.utc) - timedelta(days=60)


def test_a_signed_release_is_taken_with_the_size_of_its_index(signed: Any) -> None:
    index = Layout.open(signed.registry).path_of(signed.digest)
    assert signed.verify() == signed.verify() == index.stat().st_size


def test_a_release_that_nobody_signed_is_refused(signed: Any) -> None:
    later = put_tiny(Layout.open(signed.registry), "1.1.0")
    with pytest.raises(TrustError, match=r"tiny:1\.1\.0 is not signed"):
        signed.verify("tiny:1.1.0", later.digest)


def test_a_registry_without_signatures_is_refused(signed: Any) -> None:
    shutil.rmtree(signed.trust)
    with pytest.raises(TrustError, match="holds no signatures"):
        signed.verify()


def test_another_content_under_a_signed_name_is_refused_until_it_is_signed(signed: Any) -> None:
    old = signed.digest
    other = put_tiny(Layout.open(signed.registry), "1.0.0", offset=2).digest
    with pytest.raises(TrustError, match=f"signed with another digest, {old}, not {other}"):
        signed.verify(digest=other)
    signed.signing.sign("tiny:1.0.0")
    signed.verify(digest=other)
    with pytest.raises(TrustError, match="signed with another digest"):
        signed.verify(digest=old)


def test_signatures_of_another_root_are_refused(signed: Any, tmp_path: Path) -> None:
    shutil.rmtree(signed.trust)
    create(signed.registry, tmp_path / "attacker")
    Signing.open(signed.registry, [tmp_path / "attacker"]).sign("tiny:1.0.0")
    with pytest.raises(
        TrustError, match=r"timestamp\.json: is not signed by the keys that .*root\.json leads to"
    ):
        signed.verify()


def test_an_older_registry_put_back_is_refused_by_who_has_seen_the_newer(signed: Any, tmp_path: Path) -> None:
    old = signed.copy(tmp_path / "old")
    signed.signing.renew()
    signed.verify()
    shutil.rmtree(signed.registry)
    old.rename(signed.registry)
    with pytest.raises(TrustError, match="is older than what was seen before"):
        signed.verify()
    signed.verify_as_new()  # who has seen nothing cannot know


def test_a_snapshot_put_back_is_refused(signed: Any) -> None:
    signed.signing.sign("tiny:1.0.0")
    newest, before = sorted(signed.trust.glob("*.snapshot.json"), reverse=True)[:2]
    shutil.copy(before, newest)
    with pytest.raises(TrustError, match="of another version than it must be"):
        signed.verify()


@pytest.mark.parametrize("role", ["online", "root"])
def test_signatures_out_of_date_are_refused_and_renewed_ones_are_taken(signed: Any, role: str) -> None:
    also = ["root"] if role == "root" else []
    signed.signing.renew(also, now=LONG_AGO - timedelta(days=800 if role == "root" else 0))
    with pytest.raises(TrustError, match=r"are out of date \(.*expired; .*'edgewright trust renew'"):
        signed.verify()
    signed.signing.renew(also)
    signed.verify()


def test_a_registry_that_is_away_is_not_called_untrusted(signed: Any, tmp_path: Path) -> None:
    signed.registry.rename(tmp_path / "gone")
    with pytest.raises(MissingArtifactError, match="is not a registry folder"):
        verify_release(signed.registry, "tiny:1.0.0", "", root=signed.keys / "root.json")


def test_a_copy_that_is_under_way_is_not_called_untrusted(signed: Any) -> None:
    (signed.trust / "2.targets.json").unlink()
    with pytest.raises(MissingArtifactError, match=r"2\.targets\.json: a part of the signatures is missing"):
        signed.verify()


def test_a_pinned_root_that_is_gone_is_named(signed: Any) -> None:
    digest = signed.digest
    with pytest.raises(TrustError, match=r"nowhere\.json: the root cannot be read"):
        verify_release(signed.registry, "tiny:1.0.0", digest, root=Path("nowhere.json"))


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json", "2.root.json"])
def test_what_has_no_end_is_read_no_further_than_its_limit(signed: Any, name: str) -> None:
    (signed.trust / name).write_bytes(b"[" * (5 << 20))
    with pytest.raises(TrustError, match="is too large to be a signature"):
        signed.verify()


def test_metadata_that_is_no_metadata_is_refused_in_one_line(signed: Any) -> None:
    for text in ("", "{}", "[" * 15_000, json.dumps({"signed": {"_type": "root"}, "signatures": []}), "\0"):
        (signed.trust / "timestamp.json").write_text(text)
        with pytest.raises(TrustError, match="is damaged"):
            signed.verify()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A registry whose root was rotated once, the pinned root, and the digest that is signed."""
    folder = tmp_path_factory.mktemp("sound")
    layout = Layout.create(folder / "registry")
    digest = put_tiny(layout, "1.0.0").digest
    pin = create(layout.root, folder / "keys")
    signing = Signing.open(layout.root, [folder / "keys"])
    signing.sign("tiny:1.0.0")
    signing.rotate("online", folder / "keys")
    return layout.root, pin, digest


def a_bit() -> st.SearchStrategy[tuple[str, int]]:
    names = ("timestamp.json", "3.snapshot.json", "2.targets.json", "2.root.json", "index")
    return st.tuples(st.sampled_from(names), st.integers(0, 1 << 20))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(a_bit())
def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(
    sound: tuple[Path, Path, str], where: tuple[str, int]
) -> None:
    """A bit may be of the signature of a key that has gone, say: then what is taken is what was signed."""
    registry, pin, digest = sound
    with tempfile.TemporaryDirectory() as name:
        copy = Path(shutil.copytree(registry, Path(name, "copy")))
        path = Layout(copy).path_of(digest) if where[0] == "index" else copy / "trust" / where[0]
        data, bit = bytearray(path.read_bytes()), where[1]
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            size = verify_release(copy, "tiny:1.0.0", digest, root=pin)
            release = open_release_by_digest(Layout(copy), "tiny:1.0.0", digest, size)
        except EdgewrightError as error:
            assert "\n" not in str(error)
        else:
            assert where[0] != "index"
            assert release.digest == digest
            assert verify_registry(copy, root=pin) == verify_registry(registry, root=pin)


def test_a_blob_that_is_longer_than_signed_is_not_read_to_its_end(signed: Any) -> None:
    path, size = Layout.open(signed.registry).path_of(signed.digest), signed.verify()
    with path.open("ab") as file:
        file.truncate(1 << 26)  # a hole: it takes no room on the disk
    tracemalloc.start()
    with pytest.raises(EdgewrightError, match="its digest does not match"):
        open_release_by_digest(Layout.open(signed.registry), "tiny:1.0.0", signed.digest, size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_what_is_signed_is_told_with_its_keys_and_its_end(signed: Any) -> None:
    found = verify_registry(signed.registry)
    (key,) = found.signers("tiny:1.0.0", signed.digest)
    assert signed.key("targets").name == f"targets-{key[:8]}.pem"
    assert found.signers("tiny:1.0.0", "sha256:0") == found.signers("other:1", signed.digest) == ()
    left = found.good_until - datetime.now(timezone.utc)
    assert timedelta(days=29) < left < timedelta(days=30)
