"""Join a net: an invitation and keys that are made here, for a certificate.

The invitation names the fingerprint of the net's authority. What answers at the address has to
show that authority before a byte of the token is sent, and to prove that it signed the server's
certificate before the token goes over that connection.
"""

from __future__ import annotations

import _ssl
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from rootstock import __version__
from rootstock.common.errors import (
    ConfigurationError,
    ConflictError,
    IdentityError,
    SchemaError,
    UnreachableError,
)
from rootstock.common.files import only_one, write_bytes
from rootstock.common.identity.certificates import (
    authority_fingerprint,
    check_fingerprint,
    make_request,
    net_of,
    new_key,
    parse,
    read_identity,
)
from rootstock.common.identity.credentials import Credentials, read_credentials
from rootstock.common.identity.keys import PUBLIC_KEY_BYTES, SigningKey, load_or_create
from rootstock.common.protocol import join_bytes
from rootstock.common.transport.channel import Address, open_joining_channel, parse_address
from rootstock.common.transport.status import error_from_rpc
from rootstock.protos.rootstock.join.v1 import join_pb2 as pb
from rootstock.protos.rootstock.join.v1.join_pb2_grpc import EnrolmentStub
from rootstock.site_agent.identity import IdentityFiles

HANDSHAKE_SECONDS = 15.0
CALL_SECONDS = 30.0


@dataclass(frozen=True)
class JoinedSite:
    """What a lab has once it has joined."""

    net: str
    name: str
    coordinator: str
    """host:port that the agent calls."""
    credentials: Credentials


@dataclass(frozen=True)
class JoinKeys:
    """The keys that a lab joins with; neither leaves it."""

    tls: EllipticCurvePrivateKey
    signing: SigningKey
    request: bytes
    """The certificate request for the TLS key, PEM."""

    def proof(self, token: str) -> bytes:
        """Return the signing key's signature that it goes with the request for TLS's."""
        return self.signing.sign(join_bytes(token.partition(".")[0], self.request))


def make_keys(state: Path) -> JoinKeys:
    """Make a key for TLS, and the signing key too unless the state folder has it."""
    tls = new_key()
    signing = load_or_create(IdentityFiles(state).signing_key)
    return JoinKeys(tls, signing, make_request(tls))


def keep(state: Path, credentials: Credentials, coordinator_public_key: bytes) -> None:
    """Write what a lab got into its state folder; the credentials last: with them it has joined."""
    files = IdentityFiles(state)
    write_bytes(files.coordinator, coordinator_public_key.hex().encode())
    credentials.write(files.credentials)


def join(address: str, token: str, fingerprint: str, state: Path) -> JoinedSite:
    """Join with an invitation, as `rootstock coordinator invite` printed it.

    IdentityError if another authority answers, to which nothing is sent, or the token is wrong;
    UnreachableError if nothing answers; ConflictError if an agent runs in the state folder, or it
    belongs to another net.
    """
    where, expected = parse_address(address), check_fingerprint(fingerprint)
    with only_one(state, "agent"):
        authority = fetch_authority(where, expected)
        _require_own(state, authority)
        keys = make_keys(state)
        with open_joining_channel(where, authority) as channel:
            stub: Any = EnrolmentStub(channel)
            request = pb.JoinRequest(
                token=token.strip(),
                certificate_request=keys.request,
                signing_key=keys.signing.public_key,
                proof=keys.proof(token.strip()),
                agent_version=__version__,
            )
            try:
                answer = stub.Join(request, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                raise error_from_rpc(error) from error
        if len(answer.coordinator_public_key) != PUBLIC_KEY_BYTES:
            raise SchemaError(
                f"the coordinator's key has {len(answer.coordinator_public_key)} bytes, an Ed25519 "
                f"key has {PUBLIC_KEY_BYTES}; check the coordinator's version"
            )
        credentials = Credentials(keys.tls, parse(answer.certificate), authority)
        identity = read_identity(answer.certificate, authority)
        keep(state, credentials, answer.coordinator_public_key)
    coordinator = str(Address(where.host, answer.port))
    return JoinedSite(identity.net, identity.name, coordinator, credentials)


def fetch_authority(address: Address, fingerprint: str) -> x509.Certificate:
    """Return the authority that a server presents, if its fingerprint is the expected one.

    Nothing but a handshake is sent. That the authority has signed the server's certificate is for
    the connection to verify that trusts nothing else.
    """
    for der in _presented(address):
        certificate = x509.load_der_x509_certificate(der)
        found = authority_fingerprint(certificate)
        if found == fingerprint:
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


def _require_own(state: Path, authority: x509.Certificate) -> None:
    """Refuse a state folder whose spool and cursor are another federation's."""
    path = IdentityFiles(state).credentials
    if not path.exists():
        return
    known = read_credentials(path).authority
    if authority_fingerprint(known) != authority_fingerprint(authority):
        raise ConflictError(
            f"{state} is the state of a lab of net '{net_of(known)}' under another authority; name "
            "another folder with --state, or move this one away"
        )
