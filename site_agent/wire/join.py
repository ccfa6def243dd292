"""Join a net: an invitation and keys that are made here, for a certificate.

What is sent, and only to whom, is `rootstock.common.transport.joining`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from rootstock.common.errors import ConflictError
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
from rootstock.common.identity.keys import SigningKey, load_or_create
from rootstock.common.transport.channel import Address, parse_address
from rootstock.common.transport.joining import fetch_authority, trade
from rootstock.site_agent.identity import IdentityFiles


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
        invited = trade(where, authority, token, keys.request, keys.signing)
        credentials = Credentials(keys.tls, parse(invited.certificate), authority)
        identity = read_identity(invited.certificate, authority)
        keep(state, credentials, invited.coordinator_public_key)
    coordinator = str(Address(where.host, invited.port))
    return JoinedSite(identity.net, identity.name, coordinator, credentials)


def _require_own(state: Path, authority: x509.Certificate) -> None:
    """Refuse a state folder whose credentials are another net's, which they are not to replace."""
    path = IdentityFiles(state).credentials
    if not path.exists():
        return
    known = read_credentials(path).authority
    if authority_fingerprint(known) != authority_fingerprint(authority):
        raise ConflictError(
            f"{state} is the state of a lab of net '{net_of(known)}' under another authority; name "
            f"another folder with --state. If the lab is to leave that net, remove {path} and join "
            "again: its teacher net is then shipped here, or trained anew if the plan is another "
            "one; to go back it needs another invitation"
        )
