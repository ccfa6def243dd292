"""Signed envelopes: DSSE v1.0 (github.com/secure-systems-lab/dsse), one Ed25519 signature each.

What is signed is the type and the payload, so that nothing that was signed as one thing passes for
another. Any DSSE verifier reads them.
"""

from __future__ import annotations

import base64
import binascii

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.errors import IntegrityError, SchemaError
from rootstock.common.identity.keys import SigningKey, key_id, verify


class EnvelopeSignature(Document):
    """One signature of an envelope."""

    keyid: str = Field(max_length=64)
    """SHA-256 of the public key, in hex: which key, not whose."""
    sig: str = Field(max_length=128)
    """Base64."""


class Envelope(Document):
    """A payload with its type and who signed both; the keys are DSSE's."""

    payload: str
    """Base64."""
    payloadType: str = Field(max_length=200)
    signatures: tuple[EnvelopeSignature]

    def opened(self, public_key: bytes, payload_type: str, *, what: str) -> bytes:
        """Return the payload, of that type and signed by that key.

        SchemaError if it is no such envelope, IntegrityError if it is not signed by that key;
        `what` is how errors name it.
        """
        if self.payloadType != payload_type:
            raise SchemaError(
                f"{what} is of type {self.payloadType!r}, expected was {payload_type!r}"
            )
        (signature,) = self.signatures
        if signature.keyid != key_id(public_key):
            raise IntegrityError(
                f"{what} is signed with key {signature.keyid[:16]}, not with "
                f"{key_id(public_key)[:16]}"
            )
        payload = _decoded(self.payload, what)
        signed = pae(payload_type, payload)
        verify(public_key, _decoded(signature.sig, what), signed, what=what)
        return payload


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return what a signature is over: DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(key: SigningKey, payload_type: str, payload: bytes) -> Envelope:
    """Sign a payload."""
    signature = key.sign(pae(payload_type, payload))
    return enveloped(payload_type, payload, key.public_key, signature)


def enveloped(payload_type: str, payload: bytes, public_key: bytes, signature: bytes) -> Envelope:
    """Return the envelope of what was signed before; nothing is checked."""
    return Envelope(
        payload=base64.b64encode(payload).decode(),
        payloadType=payload_type,
        signatures=(
            EnvelopeSignature(keyid=key_id(public_key), sig=base64.b64encode(signature).decode()),
        ),
    )


def _decoded(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SchemaError(f"{what} holds what is no base64: {error}") from error
    if base64.b64encode(data).decode() != text:  # bits that no byte needs
        raise SchemaError(f"{what} holds base64 that is not canonical")
    return data
