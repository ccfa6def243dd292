"""What sites and coordinators sign: in-toto statements v1 (github.com/in-toto/attestation) in DSSE.

A manifest and a version's commit are stored as they always were, with a signature of 64 bytes; what
it is over is the statement, which is made anew from what is stored, as is its envelope. A statement
names the net by its coordinator's key, so that none is worth anything in another net.

What was signed before there were statements is over the document itself.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

from rootstock.common.documents import canonical_json
from rootstock.common.errors import IntegrityError
from rootstock.common.identity.keys import SigningKey, key_id, verify
from rootstock.common.nets.graph import VersionCommit
from rootstock.common.provenance.envelope import Envelope, enveloped, pae

STATEMENT_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_MANIFEST = "urn:rootstock:manifest:v1"
_VERSION = "urn:rootstock:net-version:v1"


def manifest_statement(document: bytes, net: str) -> bytes:
    """Return what a site says with a manifest: that it is for this net (see `LogHead.net`)."""
    digest = hashlib.sha256(document).hexdigest()
    return _statement("manifest", digest, _MANIFEST, {"net": net})


def sign_manifest(key: SigningKey, document: bytes, net: str) -> bytes:
    """Return a site's signature of a manifest for a net, 64 bytes."""
    return key.sign(pae(STATEMENT_TYPE, manifest_statement(document, net)))


def verify_manifest(
    public_key: bytes, signature: bytes, document: bytes, net: str, *, what: str, old: bool = False
) -> None:
    """Check a site's signature of a manifest for a net; IntegrityError if it is none.

    `old` also takes one from before there were statements, which says nothing of a net.
    """
    if old:
        with suppress(IntegrityError):
            verify(public_key, signature, document, what=what)
            return
    signed = pae(STATEMENT_TYPE, manifest_statement(document, net))
    verify(public_key, signature, signed, what=what)


def version_statement(commit: VersionCommit) -> bytes:
    """Return what a coordinator says with a version: all of its commit."""
    unsigned = commit.model_copy(update={"signature": ""})
    said = commit.model_dump(mode="json", exclude={"signature"})
    return _statement(f"version {commit.number}", unsigned.content_digest(), _VERSION, said)


def sign_version(key: SigningKey, commit: VersionCommit) -> VersionCommit:
    """Return a version's commit, signed for the net of that key."""
    ours = commit.model_copy(update={"net": key_id(key.public_key)})
    signature = key.sign(pae(STATEMENT_TYPE, version_statement(ours)))
    return ours.model_copy(update={"signature": signature.hex()})


def verify_version_commit(public_key: bytes, commit: VersionCommit) -> None:
    """Check a coordinator's signature of a version's commit; IntegrityError if it is none."""
    what, signature = f"the commit of version {commit.number}", bytes.fromhex(commit.signature)
    if commit.net is None:  # from before there were statements
        verify(public_key, signature, commit.signed_bytes(), what=what)
        return
    if commit.net != key_id(public_key):
        raise IntegrityError(f"{what} is of net {commit.net[:16]}, not {key_id(public_key)[:16]}")
    verify(public_key, signature, pae(STATEMENT_TYPE, version_statement(commit)), what=what)


def statement_envelope(statement: bytes, public_key: bytes, signature: bytes) -> Envelope:
    """Return the DSSE envelope of a statement that was signed."""
    return enveloped(STATEMENT_TYPE, statement, public_key, signature)


def _statement(name: str, digest: str, kind: str, predicate: dict[str, Any]) -> bytes:
    return canonical_json(
        {
            "_type": _STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": digest}}],
            "predicateType": kind,
            "predicate": predicate,
        }
    )
