"""Keys, signatures, renewal and rotation; and a publisher that is cut short between any two files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import put_tiny
from edgewright.artifact.layout import Layout
from edgewright.errors import StorageError, TrustError
from edgewright.trust import repository as repository_module
from edgewright.trust.repository import Signing, create
from edgewright.trust.verify import verify_registry


class PowerCutError(BaseException):
    pass


def test_keys_are_for_their_owner_alone_and_others_are_refused(signed: Any) -> None:
    files = [*signed.keys.glob("*.pem")]
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert signed.keys.stat().st_mode & 0o777 == 0o700
    files[0].chmod(0o640)
    with pytest.raises(TrustError, match=r"is open to other users \(mode 0640\); chmod 600"):
        signed.signing.sign("tiny:1.0.0")


def test_a_passphrase_locks_all_keys_but_the_one_that_renews(tmp_path: Path, registry: Layout) -> None:
    secret, wrong, keys = tmp_path / "secret", tmp_path / "wrong", tmp_path / "keys"
    for file in (secret, wrong):
        file.write_text(f"a passphrase that is {file.name}\n")
        file.chmod(0o600)
    create(registry.root, keys, secret)
    locked = {file.name.partition("-")[0] for file in keys.glob("*.pem") if b"ENCRYPTED" in file.read_bytes()}
    assert locked == {"root", "targets"}
    Signing.open(registry.root, [keys]).renew()
    with pytest.raises(
        TrustError, match=r"signing targets lacks 1 of 1 keys: \w{8}; 2 need a passphrase; .*--pass"
    ):
        Signing.open(registry.root, [keys]).sign("tiny:1.0.0")
    with pytest.raises(TrustError, match="the passphrase is not its own"):
        Signing.open(registry.root, [keys], wrong)
    Signing.open(registry.root, [keys], secret).sign("tiny:1.0.0")
    secret.chmod(0o644)
    with pytest.raises(TrustError, match="the passphrase file is open to other users"):
        Signing.open(registry.root, [keys], secret)


def test_the_online_key_alone_renews_and_does_not_sign(signed: Any, tmp_path: Path) -> None:
    online = tmp_path / "online"
    online.mkdir()
    shutil.copy(signed.keys / "root.json", online)
    shutil.copy(signed.key("online"), online)
    only = Signing.open(signed.registry, [online])
    only.renew(days=90)
    signed.verify()
    with pytest.raises(TrustError, match="signing targets lacks 1 of 1 keys"):
        only.check()
    with pytest.raises(TrustError, match="signing root lacks 1 of 1 keys"):
        only.renew(["root"])


def test_a_release_that_is_signed_after_renewals_is_seen_by_who_saw_them(signed: Any) -> None:
    for _ in range(3):
        signed.signing.renew()
    signed.verify()
    later = put_tiny(Layout.open(signed.registry), "1.1.0").digest
    signed.signing.sign("tiny:1.1.0")
    signed.verify("tiny:1.1.0", later)


@pytest.mark.parametrize("role", ["root", "targets", "online"])
def test_devices_follow_a_key_that_is_replaced(signed: Any, role: Any) -> None:
    signed.verify()
    old = signed.key(role)
    new = signed.signing.rotate(role, signed.keys)
    assert new.exists()
    signed.verify()
    signed.verify_as_new()
    old.unlink()
    signed.signing.sign("tiny:1.0.0")
    signed.signing.renew(["root", "targets"])
    signed.verify()
    assert verify_registry(signed.registry).roles["root"].version == 3


@pytest.mark.parametrize("role", ["targets", "online"])
def test_a_lost_key_is_replaced_without_it(signed: Any, role: Any) -> None:
    signed.verify()
    signed.key(role).unlink()
    with pytest.raises(TrustError, match="lacks 1 of 1 keys"):
        signed.signing.sign("tiny:1.0.0")
    signed.signing.rotate(role, signed.keys)
    signed.verify()


def test_a_stolen_key_that_was_replaced_signs_nothing_that_devices_take(signed: Any, tmp_path: Path) -> None:
    stolen = tmp_path / "stolen"
    shutil.copytree(signed.keys, stolen)
    before = signed.copy(tmp_path / "before")
    for role in ("targets", "online"):
        signed.signing.rotate(role, signed.keys, replace=next(iter(stolen.glob(f"{role}-*"))).name[-12:-4])
    signed.verify()
    evil = put_tiny(Layout.open(before), "1.0.0", offset=7).digest
    for _ in range(20):  # beyond all versions that were seen
        Signing.open(before, [stolen]).sign("tiny:1.0.0")
    for file in (before / "trust").glob("[!0-9]*.json"):
        shutil.copy(file, signed.trust)
    for file in (before / "trust").glob("2?.*.json"):
        shutil.copy(file, signed.trust)
    shutil.copytree(before / "blobs", signed.registry / "blobs", dirs_exist_ok=True)
    with pytest.raises(TrustError, match="is not signed by the keys"):
        signed.verify(digest=evil)


def test_devices_that_a_stolen_online_key_led_far_ahead_are_won_back_by_a_new_one(
    signed: Any, tmp_path: Path
) -> None:
    true = signed.copy(tmp_path / "true")
    for _ in range(5):
        signed.signing.renew()
    signed.verify()
    shutil.rmtree(signed.registry)
    true.rename(signed.registry)
    with pytest.raises(TrustError, match="is older than what was seen before"):
        signed.verify()
    signed.signing.rotate("online", signed.keys)
    signed.verify()


def test_a_root_of_which_two_of_three_keys_must_sign(tmp_path: Path, registry: Layout) -> None:
    keys, safe = tmp_path / "keys", tmp_path / "safe"
    create(registry.root, keys, root_keys=3, threshold=2)
    safe.mkdir()
    first, second, _third = sorted(keys.glob("root-*.pem"))
    second.rename(safe / second.name)
    _third.rename(safe / _third.name)
    with pytest.raises(TrustError, match=r"signing root lacks 1 of 2 keys: \w{8} or \w{8}; name"):
        Signing.open(registry.root, [keys]).renew(["root"])
    both = Signing.open(registry.root, [keys, safe / second.name])
    both.renew(["root"])
    with pytest.raises(TrustError, match="it is open which one goes of the keys of root"):
        both.rotate("root", keys)
    both.rotate("root", keys, replace=first.name[5:13])
    both = Signing.open(registry.root, [keys, safe])
    both.rotate("root", keys, add=True, threshold=4)
    Signing.open(registry.root, [keys, safe]).sign("tiny:1.0.0")
    root = verify_registry(registry.root, root=keys / "root.json").roles["root"]
    assert (root.threshold, len(root.keys), root.version) == (4, 4, 4)


@pytest.mark.parametrize(("root_keys", "threshold"), [(1, 2), (2, 3)])
def test_more_signatures_than_keys_cannot_be_wanted(
    tmp_path: Path, registry: Layout, root_keys: int, threshold: int
) -> None:
    with pytest.raises(TrustError, match="set --threshold"):
        create(registry.root, tmp_path / "keys", root_keys=root_keys, threshold=threshold)
    assert not (tmp_path / "keys").exists()


def test_nobody_signs_what_another_one_added(signed: Any, tmp_path: Path) -> None:
    shutil.rmtree(signed.trust)
    create(signed.registry, tmp_path / "attacker")
    Signing.open(signed.registry, [tmp_path / "attacker"]).sign("tiny:1.0.0")
    with pytest.raises(TrustError, match=r"is not what the keys of .*root\.json signed"):
        signed.signing.sign("tiny:1.0.0")


def test_keys_without_their_root_sign_nothing(signed: Any) -> None:
    (signed.keys / "root.json").unlink()
    with pytest.raises(TrustError, match=r"no root\.json lies beside the keys"):
        signed.signing.renew()


def test_a_second_init_changes_nothing(signed: Any, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="is there already"):
        create(signed.registry, tmp_path / "more")
    with pytest.raises(TrustError, match="is there already"):
        create(tmp_path / "other", signed.keys)
    assert not (tmp_path / "more").exists()
    signed.verify()


def test_old_versions_are_cleared_away_but_for_the_last_two(signed: Any) -> None:
    for _ in range(4):
        signed.signing.sign("tiny:1.0.0")
    for role in ("targets", "snapshot"):
        assert sorted(path.name for path in signed.trust.glob(f"*.{role}.json")) == [
            f"5.{role}.json",
            f"6.{role}.json",
        ]


STEPS: dict[str, Callable[[Any], object]] = {
    "sign": lambda one: one.signing.sign("tiny:1.1.0"),
    "renew": lambda one: one.signing.renew(["root", "targets"]),
    "rotate root": lambda one: one.signing.rotate("root", one.keys),
    "rotate targets": lambda one: one.signing.rotate("targets", one.keys),
    "rotate online": lambda one: one.signing.rotate("online", one.keys),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("cut", range(5))
def test_a_step_that_is_cut_short_anywhere_leaves_what_devices_take_and_is_done_again(
    signed: Any, monkeypatch: pytest.MonkeyPatch, step: str, cut: int
) -> None:
    layout = Layout.open(signed.registry)
    later = put_tiny(layout, "1.1.0").digest
    signed.verify()
    real, left = repository_module.write_durably, [cut]

    def cut_short(path: Path, data: bytes) -> None:
        if left[0] == 0:
            raise PowerCutError
        left[0] -= 1
        real(path, data)

    keys = {*signed.keys.iterdir()}
    monkeypatch.setattr(repository_module, "write_durably", cut_short)
    try:
        STEPS[step](signed)
    except PowerCutError:
        # No root names the key that was made for it.
        for orphan in {*signed.keys.iterdir()} - keys:
            orphan.rename(orphan.with_suffix(".orphan"))
    monkeypatch.setattr(repository_module, "write_durably", real)
    signed.verify()
    signed.verify_as_new()
    if step.startswith("rotate") and left[0] != 0:
        return  # it was done
    STEPS[step](signed)
    signed.signing.sign("tiny:1.1.0")
    signed.verify()
    signed.verify("tiny:1.1.0", later)


def test_a_disk_that_is_full_is_said_and_what_was_signed_holds(
    signed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise StorageError("the disk is full", where=str(path))

    with monkeypatch.context() as patch:
        patch.setattr(repository_module, "write_durably", full)
        with pytest.raises(StorageError, match="the disk is full"):
            signed.signing.sign("tiny:1.0.0")
    signed.verify()


def test_two_who_sign_at_once_both_count(signed: Any) -> None:
    import threading

    layout = Layout.open(signed.registry)
    digests = {f"tiny:1.{n}.0": put_tiny(layout, f"1.{n}.0").digest for n in range(1, 9)}
    threads = [threading.Thread(target=signed.signing.sign, args=(name,)) for name in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, digest in digests.items():
        signed.verify(name, digest)
