"""Joining a coordinator's server: who is let in, and what those who are not get to know."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from rootstock.common.errors import (
    BusyError,
    ConfigurationError,
    ConflictError,
    IdentityError,
    LimitError,
    RootstockError,
    UnreachableError,
)
from rootstock.common.identity.certificates import (
    authority_fingerprint,
    issue_server,
    make_authority,
    make_request,
    new_key,
    to_pem,
)
from rootstock.common.identity.credentials import Credentials, read_certificate, read_credentials
from rootstock.common.identity.keys import load
from rootstock.common.transport.channel import open_joining_channel, parse_address
from rootstock.coordinator.identity.members import Offer
from rootstock.coordinator.registry import Access
from rootstock.deploy.client import OperatorClient
from rootstock.protos.rootstock.join.v1 import join_pb2 as pb
from rootstock.protos.rootstock.join.v1.join_pb2_grpc import EnrolmentStub
from rootstock.site_agent.identity import IdentityFiles, identity_of
from rootstock.site_agent.wire.join import JoinedSite, join
from tests.support.coordinator_server import CALL_SECONDS, Running, raising
from tests.support.impostor import Impostor

DAY = timedelta(days=1)


def invite(coordinator: Running, name: str = "cat-lab", *, again: bool = False) -> Offer:
    with OperatorClient(coordinator.config.state) as operator:
        return operator.invite(name, Access.SITE, 60.0, again=again)


def join_with(offer: Offer, state: Path, *, address: str | None = None) -> JoinedSite:
    return join(address or offer.address, offer.token, offer.authority, state)


def test_a_lab_joins_with_an_invitation(coordinator: Running, tmp_path: Path) -> None:
    joined = join_with(invite(coordinator), tmp_path / "lab")
    assert (joined.net, joined.name) == ("animals", "cat-lab")
    assert joined.coordinator == coordinator.address
    files = IdentityFiles(tmp_path / "lab")
    kept = read_credentials(files.credentials)
    assert identity_of(kept).name == "cat-lab"
    assert bytes.fromhex(files.coordinator.read_text()) == coordinator.key.public_key
    signing_key = load(files.signing_key).public_key
    assert coordinator.registry.sites.key_of("cat-lab") == signing_key


def test_a_token_is_good_once(coordinator: Running, tmp_path: Path) -> None:
    offer = invite(coordinator)
    join_with(offer, tmp_path / "lab")
    with pytest.raises(IdentityError, match="of 'cat-lab' was used"):
        join_with(offer, tmp_path / "thief")
    assert not IdentityFiles(tmp_path / "thief").credentials.exists()
    (certificate,) = [e for e in coordinator.registry.certificates.all() if e.name == "cat-lab"]
    assert certificate.revoked_at is None


def test_of_two_labs_with_one_token_one_joins(coordinator: Running, tmp_path: Path) -> None:
    offer = invite(coordinator)
    together = threading.Barrier(2)
    outcomes: dict[str, str] = {}

    def try_it(name: str) -> None:
        together.wait()
        try:
            outcomes[name] = join_with(offer, tmp_path / name).name
        except IdentityError:
            outcomes[name] = "refused"

    threads = [threading.Thread(target=try_it, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes.values()) == ["cat-lab", "refused"]


def test_an_expired_token_is_refused_and_another_lets_in(
    coordinator: Running, tmp_path: Path
) -> None:
    offer = invite(coordinator)
    late = coordinator.registry.invitations.create("dog-lab", Access.SITE, -1.0)
    with pytest.raises(IdentityError, match="expired"):
        join(offer.address, late, offer.authority, tmp_path / "late")
    assert join_with(offer, tmp_path / "lab").name == "cat-lab"


def test_a_lab_that_joins_again_has_new_keys_for_tls_and_its_old_ones_to_sign(
    coordinator: Running, tmp_path: Path
) -> None:
    first = join_with(invite(coordinator), tmp_path / "lab")
    second = join_with(invite(coordinator, again=True), tmp_path / "lab")
    assert first.credentials.key_pem != second.credentials.key_pem
    assert len(coordinator.registry.sites.keys_of("cat-lab")) == 1
    moved = join_with(invite(coordinator, again=True), tmp_path / "elsewhere")
    assert len(coordinator.registry.sites.keys_of("cat-lab")) == 2
    reasons = {
        each.serial: each.reason
        for each in coordinator.registry.certificates.all()
        if each.name == "cat-lab"
    }
    good = [serial for serial, reason in reasons.items() if reason is None]
    assert good == [identity_of(moved.credentials).serial]


def test_a_state_folder_of_another_federation_is_left_alone(
    coordinator: Running, tmp_path: Path
) -> None:
    key, now = new_key(), datetime.now(UTC)
    other = make_authority("animals", new_key(), now, DAY)
    theirs = Credentials(key, issue_server(other, key.public_key(), now, DAY), other.certificate)
    path = IdentityFiles(tmp_path / "lab").credentials
    theirs.write(path)
    offer = invite(coordinator)
    with pytest.raises(ConflictError, match="under another authority; name another folder"):
        join_with(offer, tmp_path / "lab")
    assert read_credentials(path).chain_pem == theirs.chain_pem
    assert join_with(offer, tmp_path / "other").name == "cat-lab"


def impostors(coordinator: Running, *, true_authority: bool) -> tuple[Credentials, bytes]:
    """Return a stranger's key and chain: its own, or with the net's authority at its end."""
    key, now = new_key(), datetime.now(UTC)
    own = make_authority("animals", new_key(), now, DAY)
    server = issue_server(own, key.public_key(), now, DAY)
    end = read_certificate(coordinator.paths.authority) if true_authority else own.certificate
    return Credentials(key, server, own.certificate), to_pem(server, end)


@pytest.mark.parametrize(
    ("true_authority", "error", "said"),
    [
        (False, IdentityError, "nothing was sent.*not the coordinator that answers"),
        (True, IdentityError, "is not signed by the net's authority"),
    ],
)
def test_an_impostor_gets_nothing(
    coordinator: Running,
    tmp_path: Path,
    true_authority: bool,
    error: type[RootstockError],
    said: str,
) -> None:
    offer = invite(coordinator)
    chain = impostors(coordinator, true_authority=true_authority)
    with Impostor(tmp_path, *chain) as impostor, pytest.raises(error, match=said):
        join_with(offer, tmp_path / "lab", address=impostor.address)
    assert impostor.connections >= 1
    assert impostor.heard == b""
    assert join_with(offer, tmp_path / "lab").name == "cat-lab"


def test_what_does_not_speak_tls_is_no_coordinator(coordinator: Running, tmp_path: Path) -> None:
    offer = invite(coordinator)
    with pytest.raises(UnreachableError, match="does not answer"):
        join_with(offer, tmp_path / "lab", address="127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="copy the whole line"):
        join(offer.address, offer.token, offer.authority[:-1], tmp_path / "lab")
    assert join_with(offer, tmp_path / "lab").name == "cat-lab"


def enrol(coordinator: Running, request: pb.JoinRequest) -> pb.JoinResponse:
    """Call Enrolment as a stranger does who knows the net's authority."""
    address = parse_address(coordinator.paths.join_address.read_text())
    authority = read_certificate(coordinator.paths.authority)
    with open_joining_channel(address, authority) as channel, raising():
        answer: pb.JoinResponse = EnrolmentStub(channel).Join(request, timeout=CALL_SECONDS)
    return answer


@pytest.mark.parametrize("kibibytes", [63, 65])
def test_messages_of_strangers_are_small(coordinator: Running, kibibytes: int) -> None:
    request = pb.JoinRequest(certificate_request=b"x" * (kibibytes << 10))
    with pytest.raises(RootstockError) as raised:
        enrol(coordinator, request)
    assert isinstance(raised.value, LimitError) is (kibibytes > 64)


def test_strangers_are_slowed_down_and_members_are_not(
    coordinator: Running, tmp_path: Path
) -> None:
    key = new_key()
    offer = invite(coordinator)
    token_id = offer.token.partition(".")[0]
    one = [refusal(coordinator, f"{token_id}.{number:032x}", key) for number in range(6)]
    assert one == [IdentityError] * 5 + [BusyError]
    many = [refusal(coordinator, f"{number:012x}.{'0' * 32}", key) for number in range(200)]
    # LimitError: gRPC counts a call for a moment longer than it takes.
    assert {IdentityError, BusyError} <= set(many) <= {*one, LimitError}
    with OperatorClient(coordinator.config.state) as operator:
        assert operator.status().net == "animals"


def refusal(coordinator: Running, token: str, key: EllipticCurvePrivateKey) -> type[RootstockError]:
    """Try to join with a wrong token; return what that is refused with."""
    request = pb.JoinRequest(token=token, certificate_request=make_request(key))
    with pytest.raises(RootstockError) as raised:
        enrol(coordinator, request)
    return raised.type


def test_strangers_reach_nothing_else(coordinator: Running) -> None:
    address = parse_address(coordinator.paths.join_address.read_text())
    authority = read_certificate(coordinator.paths.authority)
    with open_joining_channel(address, authority) as channel:
        call: Any = channel.unary_unary("/rootstock.operator.v1.Operator/GetStatus")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"", timeout=CALL_SECONDS)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_operator_sees_and_changes_who_is_a_member(
    coordinator: Running, tmp_path: Path
) -> None:
    join_with(invite(coordinator), tmp_path / "lab")
    invite(coordinator, "dog-lab")
    with OperatorClient(coordinator.config.state) as operator:

        def states() -> dict[str, str]:
            return {each.name: each.state for each in operator.list_members()}

        assert states() == {"cat-lab": "active", "dog-lab": "invited", "local": "active"}
        operator.disable("cat-lab", "audit")
        assert states()["cat-lab"] == "disabled"
        operator.enable("cat-lab")
        assert states()["cat-lab"] == "active"
        assert operator.revoke("cat-lab", "stolen") == 1
        assert states()["cat-lab"] == "revoked"
        with pytest.raises(ConflictError, match="has joined already"):
            operator.invite("cat-lab", Access.SITE, 60.0)


def test_the_fingerprint_is_of_the_authority_in_the_state_folder(coordinator: Running) -> None:
    authority = read_certificate(coordinator.paths.authority)
    assert invite(coordinator).authority == authority_fingerprint(authority)
