"""Labs of one machine become members of its net without invitations: one user has all folders."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.identity.credentials import Credentials
from rootstock.coordinator.identity.authority import signing_key
from rootstock.coordinator.identity.members import Members, open_members
from rootstock.coordinator.paths import StatePaths
from rootstock.deploy.federation.config import Federation
from rootstock.site_agent.wire.join import keep, make_keys


def enrol(federation: Federation) -> None:
    """Give every lab a certificate, before the coordinator starts.

    One that has its own keeps its signing key: a name belongs to the key that joined with it.
    """
    coordinator_key = signing_key(StatePaths(federation.coordinator)).public_key
    with open_members(federation.coordinator) as members:
        for site in federation.sites:
            enrol_site(members, site.site, site.state, coordinator_key)


def enrol_site(members: Members, name: str, state: Path, coordinator_key: bytes) -> None:
    """Give one lab a certificate, in its state folder; `coordinator_key` has 32 bytes."""
    keys = make_keys(state)
    certificate = members.enrol(name, keys.request, keys.signing.public_key)
    keep(state, Credentials(keys.tls, certificate, members.authority), coordinator_key)
