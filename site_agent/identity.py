"""A lab's identity: the files in its state folder that say who it is, and where they come from."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.errors import ConfigurationError, NotFoundError
from rootstock.common.files import storage_errors
from rootstock.common.identity.certificates import Identity, read_identity, to_pem
from rootstock.common.identity.credentials import Credentials, read_credentials
from rootstock.site_agent.config import SiteConfig


class IdentityFiles:
    """Paths below a state folder."""

    def __init__(self, state: Path) -> None:
        folder = state / "identity"
        self.signing_key = folder / "site.key"
        """Ed25519, signs manifests; kept when the lab joins again from here."""
        self.credentials = folder / "tls.pem"
        """The key for TLS, its certificate and the net's authority; replaced at each renewal."""
        self.coordinator = folder / "coordinator.pub"
        """The coordinator's Ed25519 key in hex, which receipts are checked with."""


def site_credentials(config: SiteConfig) -> Credentials:
    """Return a lab's credentials; NotFoundError, with the remedy, if it has not joined."""
    path = IdentityFiles(config.state).credentials
    if not path.exists():
        raise NotFoundError(
            f"{path}: this lab has not joined; ask the coordinator's operator for an invitation, "
            f"and join with it: rootstock site join … --state {config.state}"
        )
    found = read_credentials(path)
    if (name := identity_of(found).name) != config.site:
        raise ConfigurationError(
            f"site = \"{config.site}\", and {path} is the certificate of '{name}'; set site = "
            f'"{name}", or join as {config.site} with another state folder'
        )
    return found


def identity_of(credentials: Credentials) -> Identity:
    """Return who a lab's own certificate says it is, and for how long."""
    return read_identity(to_pem(credentials.certificate), credentials.authority)


def coordinator_key(config: SiteConfig) -> bytes:
    """Return the public key that the coordinator had when this lab joined, 32 bytes."""
    path = IdentityFiles(config.state).coordinator
    with storage_errors(path):
        try:
            return bytes.fromhex(path.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError) as error:
            raise NotFoundError(
                f"{path}: the coordinator's key is not there; join again, or put the file back"
            ) from error
