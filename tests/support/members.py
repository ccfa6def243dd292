"""A net's authority and members in a state folder, and requests to join."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rootstock.common.identity.certificates import make_request, new_key
from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.protocol import join_bytes
from rootstock.coordinator.config import CoordinatorConfig, IdentityConfig, PlanConfig, ServerConfig
from rootstock.coordinator.identity.members import JoinRequest
from tests.support.registry_uploads import Clock


def config(
    state: Path, net: str = "digits", join_listen: str | None = "127.0.0.1:50052", **days: float
) -> CoordinatorConfig:
    architecture = ArchitectureSpec(name="small-vgg", settings={"width": 4}, split="pool1")
    return CoordinatorConfig(
        net=net,
        state=state,
        server=ServerConfig(join_listen=join_listen),
        plan=PlanConfig(architecture=architecture),
        identity=IdentityConfig(**days),
    )


class Times:
    """One clock in seconds for the registry, and as times for the authority."""

    def __init__(self) -> None:
        self.seconds = Clock()
        self.seconds.now = 1.8e9

    def __call__(self) -> datetime:
        return datetime.fromtimestamp(self.seconds.now, UTC)


def request(token: str, key: SigningKey | None = None) -> JoinRequest:
    """Return a rightful request to join."""
    signing_key = key or SigningKey.generate()
    wanted = make_request(new_key())
    proof = signing_key.sign(join_bytes(token.partition(".")[0], wanted))
    return JoinRequest(token, wanted, signing_key.public_key, proof)
