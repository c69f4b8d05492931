"""The publisher's end: keys and a root for a registry, signatures over its releases, and their renewal.

Each release is a target of The Update Framework named `NAME:VERSION`, with the digest and size of its index,
which lead to all that belongs to it. The keys are for three things: `root` says which keys count, `targets`
signs releases, `online` (TUF's snapshot and timestamp) says which signatures are the newest. A step signs in
memory, then writes in an order in which a cut at any instant leaves what devices take, and what can be signed on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edgewright.artifact.layout import Layout
from edgewright.artifact.release import open_release
from edgewright.durable_file import write_durably
from edgewright.errors import TrustError
from edgewright.trust import first_root, metadata_folder, short
from edgewright.trust.keys import KeyRing, load_keys, new_key, pin_of, read_passphrase, store_key
from edgewright.trust.signed_state import SignedState, numbers, read_state

Role = Literal["root", "targets", "online"]
TUF_ROLES: dict[Role, tuple[str, ...]] = {
    "root": ("root",),
    "targets": ("targets",),
    "online": ("snapshot", "timestamp"),
}
ROOT_DAYS = 730
"""Two years: keys that lie in a safe are fetched once a year, with a year to spare."""
TARGETS_DAYS = 365
"""A year: each release that is signed begins it anew, and an older one is still good for a rollout."""
ONLINE_DAYS = 30
"""For so long a copy of the registry that is held back may pass for the newest, and one that nobody renews is of
use. 30: renewed once a week, three weeks may go wrong."""
KEPT = 2
"""Versions of snapshot and targets that stay: a device may be reading those before the newest."""


def create(
    registry: Path,
    keys: Path,
    passphrase_file: Path | None = None,
    *,
    root_keys: int = 1,
    threshold: int = 1,
    now: datetime | None = None,
) -> Path:
    """Make keys in the folder `keys`, and the metadata of a registry that has none, or of a new registry.

    A passphrase locks the keys of root and targets; the online key stays open, for a machine that renews by
    itself. `threshold` of `root_keys` keys sign a root. Returns the root that devices pin. Raises `TrustError`,
    `StorageError`, `ArtifactError`.
    """
    pin, passphrase = pin_of(keys), read_passphrase(passphrase_file)
    _check_elsewhere(keys, registry)
    for taken in (first_root(registry), pin):
        if taken.exists():
            remedy = "'edgewright trust rotate' changes keys; a new registry takes a new folder for its own"
            raise TrustError("is there already", where=str(taken), remedy=remedy)
    _check_threshold(threshold, root_keys)
    made: list[tuple[Role, CryptoSigner]] = [("root", new_key()) for _ in range(root_keys)]
    made += [("targets", new_key()), ("online", new_key())]
    root = Metadata(Root(consistent_snapshot=True))
    for role, signer in made:
        for name in TUF_ROLES[role]:
            root.signed.add_key(signer.public_key, name)
    root.signed.roles["root"].threshold = threshold
    ring = KeyRing({signer.public_key.keyid: signer for _, signer in made})
    with Layout.create(registry).locked():
        files = _compose(SignedState(root, Metadata(Targets()), 0), ring, now, root=root, targets=True)
        for role, signer in made:
            store_key(signer, keys, role, passphrase if role != "online" else None)
        write_durably(pin, files[first_root(registry).name])
        _write(metadata_folder(registry), files)
    return pin


@dataclass(frozen=True)
class Signing:
    """A registry and the keys at hand. Each operation reads the registry anew and keeps others from it meanwhile.

    What lies in the registry is judged by the root beside the keys.
    """

    layout: Layout
    ring: KeyRing
    pin: Path

    @staticmethod
    def open(registry: Path, keys: Sequence[Path], passphrase_file: Path | None = None) -> Signing:
        """With the keys in files and folders, and the root beside them. Raises `TrustError`, `ArtifactError`."""
        layout, ring = Layout.open(registry), load_keys(keys, read_passphrase(passphrase_file))
        found = [pin for place in keys if (pin := pin_of(place)).is_file()]
        if not found:
            problem = (
                "no root.json lies beside the keys, so that nobody can tell what in the registry is theirs"
            )
            remedy = "put the one there that devices pin"
            raise TrustError(problem, where=", ".join(map(str, keys)), remedy=remedy)
        return Signing(layout, ring, found[0])

    def check(self) -> None:
        """Raise `TrustError` where `sign` would, for work of minutes that ends in it."""
        _compose(self._read(), self.ring, None, targets=True)

    def sign(self, name: str, *, now: datetime | None = None) -> str:
        """Sign the release `NAME:VERSION` as it is in the registry, and renew; returns its digest.

        Of a name that is signed already the newer content counts from then on. Raises `TrustError`,
        `ArtifactError`, `StorageError`.
        """
        with self.layout.locked():
            release, state = open_release(self.layout, name).descriptor, self._read()
            algorithm, _, value = release.digest.partition(":")
            state.targets.signed.targets[name] = TargetFile(release.size, {algorithm: value}, name)
            self._write(_compose(state, self.ring, now, targets=True))
        return release.digest

    def renew(
        self, also: Collection[Role] = (), *, days: int = ONLINE_DAYS, now: datetime | None = None
    ) -> None:
        """Sign anew, with a later end: the timestamp, for `days`, and what else is named, for its own time.

        The root alone is renewed without the online key. Raises `TrustError`, `StorageError`.
        """
        with self.layout.locked():
            state = self._read()
            root = _next(state.root) if "root" in also else None
            online = set(also) != {"root"}
            files = _compose(
                state, self.ring, now, root=root, targets="targets" in also, online=online, days=days
            )
            self._write(files)

    def rotate(
        self,
        role: Role,
        into: Path,
        *,
        replace: str | None = None,
        add: bool = False,
        threshold: int | None = None,
        passphrase_file: Path | None = None,
        now: datetime | None = None,
    ) -> Path:
        """Make a key for a role, in a file in `into`, in place of another one or beside those there are.

        The key that goes signs once more where it is at hand, so that at every instant devices accept either root;
        a lost or stolen one need not be. `replace` is the beginning of its id. Raises `TrustError`,
        `StorageError`.
        """
        passphrase, signer = read_passphrase(passphrase_file), new_key()
        _check_elsewhere(into, self.layout.root)
        with self.layout.locked():
            state = self._read()
            root = _next(state.root)
            goes = None if add else _the_one(root.signed.roles[TUF_ROLES[role][0]].keyids, replace, role)
            for name in TUF_ROLES[role]:
                root.signed.add_key(signer.public_key, name)
                if goes is not None:
                    root.signed.revoke_key(goes, name)
                tuf_role = root.signed.roles[name]
                tuf_role.threshold = threshold or tuf_role.threshold
                _check_threshold(tuf_role.threshold, len(tuf_role.keyids))
            ring = KeyRing({**self.ring.signers, signer.public_key.keyid: signer}, self.ring.locked)
            targets, online = role == "targets", role != "root"
            files = _compose(state, ring, now, root=root, targets=targets, online=online)
            path = store_key(signer, into, role, passphrase if role != "online" else None)
            self._write(files)
        return path

    def _read(self) -> SignedState:
        return read_state(metadata_folder(self.layout.root), self.pin)

    def _write(self, files: Mapping[str, bytes]) -> None:
        _write(metadata_folder(self.layout.root), files)


def _compose(
    state: SignedState,
    ring: KeyRing,
    now: datetime | None,
    *,
    root: Metadata[Root] | None = None,
    targets: bool = False,
    online: bool = True,
    days: int = ONLINE_DAYS,
) -> dict[str, bytes]:
    """The next versions by the names of their files, in the order in which they are to be written.

    With a new `root`, all is signed by the keys of the old one too, as far as they are at hand, and the root comes
    last. Raises `TrustError` where keys are missing.
    """
    now = now or datetime.now(timezone.utc)
    roots = [state.root.signed] if root is None else [state.root.signed, root.signed]
    number, files = state.number + 1, dict[str, bytes]()
    if targets:
        state.targets.signed.version = number
        state.targets.signed.expires = now + timedelta(days=TARGETS_DAYS)
        files[f"{number}.targets.json"] = _signed(state.targets, ring, roots, roots[-1:])
    if online:
        meta = {"targets.json": MetaFile(state.targets.signed.version)}
        until = now + timedelta(days=days)
        snapshot = Metadata(Snapshot(version=number, expires=until, meta=meta))
        timestamp = Metadata(Timestamp(version=number, expires=until, snapshot_meta=MetaFile(number)))
        files[f"{number}.snapshot.json"] = _signed(snapshot, ring, roots, roots[-1:])
        files["timestamp.json"] = _signed(timestamp, ring, roots, roots[-1:])
    if root is not None:
        root.signed.expires = now + timedelta(days=ROOT_DAYS)
        files[f"{root.signed.version}.root.json"] = _signed(root, ring, roots, roots)
    return files


def _next(root: Metadata[Root]) -> Metadata[Root]:
    following = deepcopy(root)
    following.signed.version += 1
    return following


def _signed(metadata: Metadata[Any], ring: KeyRing, roots: Sequence[Root], judges: Sequence[Root]) -> bytes:
    """Metadata signed by all keys at hand that `roots` name for it, and enough of them for each of `judges`."""
    role = metadata.signed.type
    metadata.signatures.clear()
    for keyid in {keyid for root in roots for keyid in root.roles[role].keyids} & ring.signers.keys():
        metadata.sign(ring.signers[keyid], append=True)
    for judge in judges:
        found = judge.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        if not found.verified:
            wanted = " or ".join(sorted(map(short, found.unsigned)))
            locked = f"; {len(ring.locked)} need a passphrase" if ring.locked else ""
            raise TrustError(
                f"signing {role} lacks {found.missing} of {found.threshold} keys: {wanted}{locked}",
                remedy="name their files or folders with --keys, and --passphrase-file where they have one",
            )
    return metadata.to_bytes()


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        write_durably(folder / name, data)
    for role in ("targets", "snapshot"):
        for number in numbers(folder, role)[:-KEPT]:
            (folder / f"{number}.{role}.json").unlink(missing_ok=True)


def _the_one(held: Sequence[str], replace: str | None, role: Role) -> str:
    found = [keyid for keyid in held if keyid.startswith(replace or "")]
    if len(found) != 1:
        which = f"'{replace}' is not one" if replace else "it is open which one goes"
        keys = ", ".join(sorted(map(short, held)))
        remedy = "name one with --replace, or --add the new one"
        raise TrustError(f"{which} of the keys of {role}: {keys}", remedy=remedy)
    return found[0]


def _check_elsewhere(keys: Path, registry: Path) -> None:
    if keys.resolve().is_relative_to(registry.resolve()):
        problem = "is in the registry, which is copied to devices"
        raise TrustError(problem, where=str(keys), remedy="name a folder of your own for the keys")


def _check_threshold(threshold: int, keys: int) -> None:
    if not 1 <= threshold <= keys:
        raise TrustError(f"of {keys} keys, {threshold} cannot be wanted", remedy="set --threshold")
