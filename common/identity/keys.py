"""Ed25519 keys: a site's and the coordinator's name is what it can sign."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from rootstock.common.errors import ConfigurationError, IntegrityError, NotFoundError, SchemaError
from rootstock.common.files import aside, storage_errors, sync_folder

PUBLIC_KEY_BYTES = 32

_MAX_KEY_FILE_BYTES = 16_384


class SigningKey:
    """A private key in memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def public_key(self) -> bytes:
        """The public key, 32 raw bytes."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, data: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(data)

    def to_pem(self) -> bytes:
        """Return the private key as it is in its file (PKCS #8, PEM)."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def verify(public_key: bytes, signature: bytes, data: bytes, *, what: str) -> None:
    """Check a signature; `what` is how errors name what was signed ("the manifest")."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
    except ValueError as error:
        raise SchemaError(
            f"the key for {what} has {len(public_key)} bytes; an Ed25519 key has {PUBLIC_KEY_BYTES}"
        ) from error
    try:
        key.verify(signature, data)
    except InvalidSignature as error:
        raise IntegrityError(
            f"the signature of {what} is not by key {fingerprint(public_key)}; sign it with the "
            "key that joined, or join under another name"
        ) from error


def key_id(public_key: bytes) -> str:
    """Return the SHA-256 of a public key in hex; a coordinator's names its net."""
    return hashlib.sha256(public_key).hexdigest()


def fingerprint(public_key: bytes) -> str:
    """Return the first 16 hex digits of a public key's `key_id`, for people to compare."""
    return key_id(public_key)[:16]


def load_or_create(path: Path) -> SigningKey:
    """Read a private key, or make one that only this user can read.

    Of two processes that make one at the same time, the first wins and both get its key.
    """
    if not path.exists():
        create_private(path, SigningKey.generate().to_pem())
    return load(path)


def create_private(path: Path, pem: bytes) -> None:
    """Write a file that only this user can read, unless it is there."""
    with aside(path, mode=0o600) as (temporary, file):
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, never replaces a key that is there
        except FileExistsError:
            return
        sync_folder(path.parent)


def load(path: Path) -> SigningKey:
    """Read a private key; a missing one stays missing."""
    pem = read_private(path)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: holds no private key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: holds another kind of key; an Ed25519 key is needed")
    return SigningKey(key)


def read_private(path: Path) -> bytes:
    """Read a file with a private key, which must be there and be read by nobody else."""
    try:
        with storage_errors(path), path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            pem = file.read(_MAX_KEY_FILE_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path}: the private key is not there; put the file back from a backup, or name the "
            "state folder that has it. A new key could not stand in for it: what was signed so far "
            "is checked against this one"
        ) from error
    if mode & 0o077:
        raise ConfigurationError(
            f"{path}: a private key that others can read (mode {mode:04o}); run chmod 600 {path}"
        )
    return pem
