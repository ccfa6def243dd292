"""Certificates for tests: of a net that no coordinator has, and of coordinators that run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import grpc

from rootstock.common.identity.certificates import (
    Role,
    issue_client,
    issue_server,
    make_authority,
    new_key,
)
from rootstock.common.identity.credentials import Credentials
from rootstock.common.identity.keys import SigningKey, load_or_create
from rootstock.coordinator.registry import Access
from rootstock.deploy.client import OperatorClient
from rootstock.site_agent.identity import IdentityFiles
from rootstock.site_agent.wire.join import JoinedSite, join

DAY = timedelta(days=1)

STATES: dict[str, Path] = {}
"""The state folders of the coordinators of these tests, by address."""


@cache
def _authority() -> tuple[Credentials, Credentials]:
    now, server, client = datetime.now(UTC), new_key(), new_key()
    authority = make_authority("digits", new_key(), now, DAY)
    serving = issue_server(authority, server.public_key(), now, DAY)
    calling = issue_client(authority, client.public_key(), Role.SITE, "lab", now, DAY)
    return (
        Credentials(server, serving, authority.certificate),
        Credentials(client, calling, authority.certificate),
    )


def client_credentials() -> Credentials:
    """Return those of a client of `server_credentials`."""
    return _authority()[1]


def server_credentials() -> grpc.ServerCredentials:
    """Return those of a server that lets in `client_credentials`."""
    server = _authority()[0]
    return grpc.ssl_server_credentials(
        [(server.key_pem, server.chain_pem)], server.authority_pem, require_client_auth=True
    )


def write_identity(state: Path, name: str, age: float = 0) -> None:
    """Make a folder that of a lab whose coordinator is not there, joined so many days ago."""
    files = IdentityFiles(state)
    load_or_create(files.signing_key)
    files.coordinator.write_text(SigningKey.generate().public_key.hex())
    joined, key = datetime.now(UTC) - age * DAY, new_key()
    authority = make_authority("digits", new_key(), joined, 10 * DAY)
    certificate = issue_client(authority, key.public_key(), Role.SITE, name, joined, DAY)
    Credentials(key, certificate, authority.certificate).write(files.credentials)


def join_coordinator(address: str, name: str, state: Path) -> JoinedSite:
    """Join a coordinator of these tests, as its operator's line says; again if it is known."""
    with OperatorClient(STATES[address]) as operator:
        offer = operator.invite(name, Access.SITE, 60.0, again=True)
    return join(offer.address, offer.token, offer.authority, state)
