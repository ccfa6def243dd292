"""The wire of one who is invited: an authority by its fingerprint, a token for a certificate.

The invitation names the fingerprint of the net's authority. What answers at the address has to
show that authority before a byte of the token is sent, and to prove that it signed the server's
certificate before the token goes over that connection.
"""

from __future__ import annotations

import _ssl
import hashlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from cryptography import x509

from rootstock import __version__
from rootstock.common.errors import ConfigurationError, IdentityError, SchemaError, UnreachableError
from rootstock.common.identity.certificates import net_of
from rootstock.common.identity.keys import PUBLIC_KEY_BYTES, SigningKey
from rootstock.common.protocol import join_bytes
from rootstock.common.transport.channel import Address, open_joining_channel
from rootstock.common.transport.status import error_from_rpc
from rootstock.protos.rootstock.join.v1 import join_pb2 as pb
from rootstock.protos.rootstock.join.v1.join_pb2_grpc import EnrolmentStub

HANDSHAKE_SECONDS = 15.0
CALL_SECONDS = 30.0


@dataclass(frozen=True)
class Admitted:
    """What an invitation was traded for."""

    certificate: bytes
    """PEM."""
    coordinator_public_key: bytes
    """Ed25519, 32 raw bytes."""
    port: int
    """Where members call the coordinator."""


def trade(
    address: Address,
    authority: x509.Certificate,
    token: str,
    request: bytes,
    signing_key: SigningKey | None,
) -> Admitted:
    """Trade a token and a certificate request (PEM) for a certificate.

    A site signs that its signing key goes with the request; an operator has none. IdentityError if
    the token is wrong or used up, or the server is not the authority's.
    """
    token = token.strip()
    message = pb.JoinRequest(token=token, certificate_request=request, agent_version=__version__)
    if signing_key is not None:
        message.signing_key = signing_key.public_key
        message.proof = signing_key.sign(join_bytes(token.partition(".")[0], request))
    with open_joining_channel(address, authority) as channel:
        stub: Any = EnrolmentStub(channel)
        try:
            answer = stub.Join(message, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error
    if len(answer.coordinator_public_key) != PUBLIC_KEY_BYTES:
        raise SchemaError(
            f"the coordinator's key has {len(answer.coordinator_public_key)} bytes, an Ed25519 key "
            f"has {PUBLIC_KEY_BYTES}; check the coordinator's version"
        )
    return Admitted(answer.certificate, answer.coordinator_public_key, answer.port)


def fetch_authority(address: Address, fingerprint: str) -> x509.Certificate:
    """Return the authority that a server presents, if its fingerprint is the expected one.

    Nothing but a handshake is sent. That the authority has signed the server's certificate is for
    the connection to verify that trusts nothing else.
    """
    found = "none"
    for der in _presented(address):
        # Of the bytes: what an impostor presents need not be a certificate.
        found = f"sha256:{hashlib.sha256(der).hexdigest()}"
        if found == fingerprint:
            certificate = x509.load_der_x509_certificate(der)
            net_of(certificate)
            return certificate
    raise IdentityError(
        f"{address} presents the authority {found}, the invitation names {fingerprint}; nothing "
        "was sent. Copy the whole line that `rootstock coordinator invite` printed; if it is this "
        "one, it is not the coordinator that answers there"
    )


def _presented(address: Address) -> list[bytes]:
    """Return the certificates of a server's handshake (DER), its own first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The authority is not known yet: what is presented is compared with the fingerprint.
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((address.host, address.port), HANDSHAKE_SECONDS) as connection,
            context.wrap_socket(connection) as secured,
        ):
            return _chain(secured)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{address} does not speak TLS ({error.reason}); give the address of the coordinator's "
            "server.join_listen, as the invitation has it"
        ) from error
    except OSError as error:
        raise UnreachableError(
            f"{address} does not answer ({error.strerror or error}); check the address, and that "
            "the coordinator runs there"
        ) from error


def _chain(secured: ssl.SSLSocket) -> list[bytes]:
    public: Callable[[], list[bytes]] | None = getattr(secured, "get_unverified_chain", None)
    if public is not None:  # Python 3.13 and later
        return public()
    inner: Any = secured._sslobj  # type: ignore[attr-defined]
    return [each.public_bytes(_ssl.ENCODING_DER) for each in inner.get_unverified_chain() or ()]
