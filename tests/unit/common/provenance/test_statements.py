"""What is signed is an in-toto statement, for one net, and the stored form holds all of it."""

from __future__ import annotations

import hashlib
import json

import pytest

from rootstock.common.errors import IntegrityError
from rootstock.common.identity.keys import SigningKey, key_id
from rootstock.common.nets.graph import VersionCommit
from rootstock.common.provenance.statements import (
    STATEMENT_TYPE,
    manifest_statement,
    sign_manifest,
    sign_version,
    statement_envelope,
    verify_manifest,
    verify_version_commit,
    version_statement,
)

LAB, CENTRE, OTHER = (SigningKey.generate() for _ in range(3))
NET, OTHER_NET = key_id(CENTRE.public_key), key_id(OTHER.public_key)
DOCUMENT = b'{"kind":"teacher"}'
COMMIT = VersionCommit(tree="a" * 64, number=1, merge={"error": 4.5}, created_at="now")


def test_a_manifest_is_signed_for_one_net() -> None:
    signature = sign_manifest(LAB, DOCUMENT, NET)
    verify_manifest(LAB.public_key, signature, DOCUMENT, NET, what="it")
    for key, document, net in (
        (LAB, DOCUMENT, OTHER_NET),
        (OTHER, DOCUMENT, NET),
        (LAB, DOCUMENT + b" ", NET),
    ):
        with pytest.raises(IntegrityError, match="the signature of it"):
            verify_manifest(key.public_key, signature, document, net, what="it")


def test_what_was_signed_before_there_were_statements_is_taken_where_that_is_asked_for() -> None:
    signature = LAB.sign(DOCUMENT)
    verify_manifest(LAB.public_key, signature, DOCUMENT, NET, what="it", old=True)
    verify_manifest(
        LAB.public_key, sign_manifest(LAB, DOCUMENT, NET), DOCUMENT, NET, what="it", old=True
    )
    with pytest.raises(IntegrityError):
        verify_manifest(LAB.public_key, signature, DOCUMENT, NET, what="it")


def test_the_envelope_is_an_in_toto_statement_in_dsse() -> None:
    signature = sign_manifest(LAB, DOCUMENT, NET)
    statement = manifest_statement(DOCUMENT, NET)
    envelope = statement_envelope(statement, LAB.public_key, signature)
    found = json.loads(envelope.opened(LAB.public_key, STATEMENT_TYPE, what="it"))
    assert found == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "manifest", "digest": {"sha256": hashlib.sha256(DOCUMENT).hexdigest()}}
        ],
        "predicateType": "urn:rootstock:manifest:v1",
        "predicate": {"net": NET},
    }


def test_a_version_is_signed_as_a_whole() -> None:
    signed = sign_version(CENTRE, COMMIT)
    verify_version_commit(CENTRE.public_key, signed)
    said = json.loads(version_statement(signed))
    assert said["predicateType"] == "urn:rootstock:net-version:v1"
    assert said["predicate"]["merge"] == {"error": 4.5}
    assert said["predicate"]["net"] == NET
    for changes in (
        {"number": 2},
        {"merge": {"error": 4.0}},
        {"parent": "b" * 64},
        {"net": None},
        {"net": OTHER_NET},
        {"signature": OTHER.sign(b"").hex()},
    ):
        with pytest.raises(IntegrityError):
            verify_version_commit(CENTRE.public_key, signed.model_copy(update=changes))
    with pytest.raises(IntegrityError, match="is of net"):
        verify_version_commit(OTHER.public_key, signed)


def test_a_commit_of_before_keeps_its_digest_and_its_signature() -> None:
    assert "net" not in json.loads(COMMIT.canonical())
    old = COMMIT.model_copy(update={"signature": CENTRE.sign(COMMIT.signed_bytes()).hex()})
    verify_version_commit(CENTRE.public_key, old)
    with pytest.raises(IntegrityError):
        verify_version_commit(OTHER.public_key, old)
