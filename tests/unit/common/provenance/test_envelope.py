"""Envelopes against DSSE's published example, and what they refuse."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.common.errors import IntegrityError, RefusedError, SchemaError
from rootstock.common.identity.keys import SigningKey, key_id
from rootstock.common.provenance.envelope import Envelope, pae, seal
from rootstock.common.provenance.log import HEAD_TYPE, LogHead, opened_head

KEY = SigningKey.generate()
OTHER = SigningKey.generate()


def test_what_is_signed_is_dsse_s() -> None:
    """The example of the protocol's page (secure-systems-lab/dsse, protocol.md)."""
    signed = pae("http://example.com/HelloWorld", b"hello world")
    assert signed == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "  # bytes are counted, not characters


def test_an_envelope_is_opened_by_its_key_and_type_alone() -> None:
    envelope = seal(KEY, "text/a", b"words")
    assert envelope.opened(KEY.public_key, "text/a", what="it") == b"words"
    assert json.loads(envelope.canonical()) == {
        "payload": base64.b64encode(b"words").decode(),
        "payloadType": "text/a",
        "signatures": [
            {
                "keyid": key_id(KEY.public_key),
                "sig": base64.b64encode(KEY.sign(pae("text/a", b"words"))).decode(),
            }
        ],
    }
    with pytest.raises(SchemaError, match="it is of type 'text/a', expected was 'text/b'"):
        envelope.opened(KEY.public_key, "text/b", what="it")
    with pytest.raises(IntegrityError, match="is signed with key"):
        envelope.opened(OTHER.public_key, "text/a", what="it")
    retyped = envelope.model_copy(update={"payloadType": "text/b"})
    with pytest.raises(IntegrityError, match="signature of it is not by key"):
        retyped.opened(KEY.public_key, "text/b", what="it")


@pytest.mark.parametrize("payload", [b"words", b"word", b"wor"])
def test_any_changed_byte_is_refused(payload: bytes) -> None:
    data = seal(KEY, "text/a", payload).canonical()
    for at in range(len(data)):
        for flip in (1, 2, 4, 0x80):
            changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            with pytest.raises((IntegrityError, SchemaError)):
                Envelope.parse(changed, what="it").opened(KEY.public_key, "text/a", what="it")


@given(st.binary(max_size=300))
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(RefusedError):
        opened_head(data, KEY.public_key)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=70), st.text(max_size=90))
def test_what_only_looks_like_one_is_refused(kind: str, payload: str, keyid: str, sig: str) -> None:
    for name in (kind, HEAD_TYPE):
        for key in (keyid, key_id(KEY.public_key)):
            value = {
                "payload": payload,
                "payloadType": name,
                "signatures": [{"keyid": key, "sig": sig}],
            }
            with pytest.raises(RefusedError):
                opened_head(json.dumps(value).encode(), KEY.public_key)


def test_a_head_is_its_net_s() -> None:
    head = LogHead(size=3, root="a" * 64, at="2026-01-01T00:00:00.000+00:00", net="b" * 64)
    ours = head.model_copy(update={"net": key_id(KEY.public_key)})
    assert opened_head(ours.sealed(KEY), KEY.public_key) == ours
    with pytest.raises(IntegrityError, match="is of net bbbbbbbbbbbbbbbb, not of"):
        opened_head(head.sealed(KEY), KEY.public_key)
    with pytest.raises(SchemaError, match=f"expected was '{HEAD_TYPE}'".replace("+", r"\+")):
        opened_head(seal(KEY, "text/a", ours.canonical()).canonical(), KEY.public_key)
    with pytest.raises(SchemaError, match="has 5000 bytes, the limit is 4096"):
        opened_head(b"x" * 5000, KEY.public_key)
