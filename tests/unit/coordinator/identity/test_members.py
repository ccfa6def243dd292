from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rootstock.common.errors import (
    ConfigurationError,
    ConflictError,
    IdentityError,
    RootstockError,
    SchemaError,
)
from rootstock.common.identity.certificates import (
    Role,
    make_request,
    new_key,
    read_identity,
    to_pem,
)
from rootstock.common.identity.keys import SigningKey
from rootstock.coordinator.identity.authority import NetAuthority
from rootstock.coordinator.identity.members import JoinRequest, Members, open_members
from rootstock.coordinator.registry import Access, Registry
from tests.support.members import Times, config, request

DAY = 86_400.0


class Net:
    """A net's members, with a clock that passes when told to."""

    def __init__(self, state: Path) -> None:
        self.times = Times()
        self.registry = Registry(f"sqlite:///{state / 'registry.sqlite'}", self.times.seconds)
        self.authority = NetAuthority(config(state), self.times)
        self.members = Members(self.registry, self.authority, config(state))
        self.config = config(state)

    def invite(self, name: str, access: Access = Access.SITE, *, again: bool = False) -> str:
        return self.members.invite(name, access, DAY, again=again).token

    def states(self) -> dict[str, str]:
        return {each.name: each.state for each in self.members.list_members()}


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    made = Net(tmp_path)
    yield made
    made.registry.close()


@pytest.mark.parametrize("access", list(Access))
def test_who_joins_gets_a_certificate_for_the_name_that_was_invited(
    net: Net, access: Access
) -> None:
    key = SigningKey.generate()
    joined = net.members.join(request(net.invite("cat-lab", access), key))
    assert (joined.name, joined.access) == ("cat-lab", access)
    found = read_identity(to_pem(joined.certificate), net.authority.certificate)
    assert found.name == "cat-lab"
    assert found.role is (Role.SITE if access is Access.SITE else Role.OPERATOR)
    (recorded,) = net.registry.certificates.all()
    assert (recorded.serial, recorded.access) == (found.serial, access)
    assert recorded.expires_at == found.not_after.timestamp()
    bound = key.public_key if access is Access.SITE else None
    assert net.registry.sites.key_of("cat-lab") == bound


def other_key(made: JoinRequest) -> JoinRequest:
    return replace(made, signing_key=SigningKey.generate().public_key)


def other_request(made: JoinRequest) -> JoinRequest:
    return replace(made, certificate_request=make_request(new_key()))


def other_token(made: JoinRequest) -> JoinRequest:
    token_id, _, secret = made.token.partition(".")
    return replace(made, token=f"{token_id[::-1]}.{secret}")


def no_request(made: JoinRequest) -> JoinRequest:
    return replace(made, certificate_request=b"")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (other_key, IdentityError),
        (other_request, IdentityError),
        (other_token, IdentityError),
        (no_request, SchemaError),
    ],
)
def test_a_request_that_is_not_the_signers_own_uses_up_nothing(
    net: Net, change: object, error: type[RootstockError]
) -> None:
    rightful = request(net.invite("cat-lab"))
    with pytest.raises(error):
        net.members.join(change(rightful))  # type: ignore[operator]
    assert net.registry.certificates.all() == []
    assert net.members.join(rightful).name == "cat-lab"


@pytest.mark.parametrize("name", ["coordinator", "local"])
def test_the_coordinators_own_names_are_not_given_away(net: Net, name: str) -> None:
    with pytest.raises(ConflictError, match="is the coordinator's own"):
        net.invite(name)


def test_who_joins_again_has_one_good_certificate(net: Net) -> None:
    net.members.join(request(net.invite("cat-lab")))
    net.times.seconds.now += 1
    net.members.join(request(net.invite("cat-lab", again=True)))
    assert [each.reason for each in net.registry.certificates.all()] == ["joined again", None]
    assert net.states() == {"cat-lab": "active"}


def test_members_are_listed_with_what_they_may(net: Net) -> None:
    for name in ("cat-lab", "cow-lab", "dog-lab"):
        net.members.join(request(net.invite(name)))
    net.members.join(request(net.invite("ann", Access.DECIDE)))
    net.invite("pig-lab")
    net.members.disable("cow-lab", "audit")
    net.members.revoke("dog-lab", "stolen")
    found = [
        (each.name, each.access.value, each.state, each.reason)
        for each in net.members.list_members()
    ]
    assert found == [
        ("cat-lab", "site", "active", ""),
        ("cow-lab", "site", "disabled", "audit"),
        ("dog-lab", "site", "revoked", "stolen"),
        ("pig-lab", "site", "invited", ""),
        ("ann", "decide", "active", ""),
    ]
    net.times.seconds.now += 91 * DAY
    assert net.states() == {
        "cat-lab": "expired",
        "cow-lab": "disabled",
        "dog-lab": "revoked",
        "ann": "expired",
    }


def test_the_local_operator_is_renewed_at_half_life(net: Net) -> None:
    first = net.members.local_operator()
    assert net.members.local_operator().chain_pem == first.chain_pem
    net.times.seconds.now += 46 * DAY
    second = net.members.local_operator()
    assert second.chain_pem != first.chain_pem
    assert len(net.registry.certificates.all()) == 2


def test_the_local_operator_gets_a_certificate_that_the_database_knows(
    net: Net, tmp_path: Path
) -> None:
    first = net.members.local_operator()
    emptied = Registry(f"sqlite:///{tmp_path / 'other.sqlite'}", net.times.seconds)
    second = Members(emptied, net.authority, net.config).local_operator()
    assert second.chain_pem != first.chain_pem
    assert [each.name for each in emptied.certificates.all()] == ["local"]
    emptied.close()


@pytest.mark.parametrize("name", ["", "Cat Lab", "../cat", "cat\n", "c" * 64])
def test_what_is_no_name_is_not_invited(net: Net, name: str) -> None:
    with pytest.raises(SchemaError, match="names have 1 to 63"):
        net.invite(name)


@pytest.mark.parametrize(
    ("listen", "host", "written", "address"),
    [
        ("127.0.0.1:50052", None, None, "127.0.0.1:50052"),
        ("127.0.0.1:0", None, "127.0.0.1:41234", "127.0.0.1:41234"),
        ("0.0.0.0:50052", "net.example.org", None, "net.example.org:50052"),
        ("0.0.0.0:50052", None, None, f"{socket.getfqdn()}:50052"),
        ("[::]:50052", "2001:db8::1", None, "[2001:db8::1]:50052"),
    ],
)
def test_an_invitation_says_where_it_is_taken(
    tmp_path: Path, listen: str, host: str | None, written: str | None, address: str
) -> None:
    settings = config(tmp_path, join_listen=listen)
    settings = settings.model_copy(
        update={"server": settings.server.model_copy(update={"host": host})}
    )
    if written is not None:
        (tmp_path / "join-address").write_text(written)
    with open_members(settings) as members:
        offer = members.invite("cat-lab", Access.SITE, DAY)
    assert offer.address == address
    assert offer.authority == NetAuthority(settings).fingerprint


@pytest.mark.parametrize(
    ("listen", "remedy"),
    [(None, "set it to host:port in coordinator.toml"), ("127.0.0.1:0", "start the coordinator")],
)
def test_nobody_is_invited_where_nobody_can_join(
    tmp_path: Path, listen: str | None, remedy: str
) -> None:
    with open_members(config(tmp_path, join_listen=listen)) as members:
        with pytest.raises(ConfigurationError, match=remedy):
            members.invite("cat-lab", Access.SITE, DAY)
        assert [each.name for each in members.list_members()] == ["local"]


def test_a_coordinator_that_runs_is_not_stood_in_for(tmp_path: Path) -> None:
    with (
        open_members(config(tmp_path)),
        pytest.raises(ConflictError, match="another coordinator"),
        open_members(config(tmp_path)),
    ):
        pytest.fail("two wrote at once")
