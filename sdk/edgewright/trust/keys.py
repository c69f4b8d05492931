"""Private keys as files: Ed25519, PEM (PKCS #8), for their owner's eyes alone, with or without a passphrase.

A file is named after the role that its key was made for and the first digits of the key's id. That is for people:
what a key may sign, the root metadata says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from edgewright.durable_file import storage_error
from edgewright.errors import TrustError
from edgewright.secret_file import must_be_private, write_private
from edgewright.trust import short


@dataclass(frozen=True)
class KeyRing:
    """The keys at hand by their id, and the files that could not be opened for want of a passphrase."""

    signers: dict[str, CryptoSigner]
    locked: tuple[Path, ...] = ()


def new_key() -> CryptoSigner:
    """A key that is in memory alone."""
    return CryptoSigner.generate_ed25519()


def store_key(signer: CryptoSigner, folder: Path, role: str, passphrase: bytes | None) -> Path:
    """Put a key into a file of its own in `folder`, durably. Raises `StorageError`."""
    pem = signer.private_bytes
    if passphrase is not None:
        private = load_pem_private_key(pem, None)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
    path = folder / f"{role}-{short(signer.public_key.keyid)}.pem"
    write_private(path, pem)
    return path


def pin_of(place: Path) -> Path:
    """Where the root lies that belongs to the keys of a folder, or to the key in a file, and that devices pin."""
    return (place.parent if place.is_file() else place) / "root.json"


def read_passphrase(file: Path | None) -> bytes | None:
    """What a passphrase file holds, without white space at its ends. Raises `TrustError`."""
    if file is None:
        return None
    must_be_private(file, "the passphrase file", TrustError)
    passphrase = _read(file).strip()
    if not passphrase:
        raise TrustError("the passphrase file is empty", where=str(file))
    return passphrase


def load_keys(places: Sequence[Path], passphrase: bytes | None) -> KeyRing:
    """The keys in files, and in all `.pem` files of folders. Raises `TrustError` that names the file."""
    files = [
        file for place in places for file in (sorted(place.glob("*.pem")) if place.is_dir() else [place])
    ]
    if not files:
        raise TrustError(
            "holds no key (no .pem file)",
            where=", ".join(map(str, places)),
            remedy="'edgewright trust init' makes keys",
        )
    signers, locked = {}, []
    for file in files:
        must_be_private(file, "the key", TrustError)
        pem = _read(file)
        if b"ENCRYPTED" in pem and passphrase is None:
            locked.append(file)
            continue
        try:
            private = load_pem_private_key(pem, passphrase if b"ENCRYPTED" in pem else None)
            signer = CryptoSigner(private)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            problem = "is no private key in PEM, or the passphrase is not its own"
            raise TrustError(problem, where=str(file), remedy="see --passphrase-file") from None
        signers[signer.public_key.keyid] = signer
    return KeyRing(signers, tuple(locked))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise storage_error(error, file) from None
