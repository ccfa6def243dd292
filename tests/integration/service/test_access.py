"""Who may call a coordinator's server: by certificate, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from rootstock.common.errors import IdentityError, RootstockError, UnreachableError
from rootstock.common.identity.certificates import (
    Authority,
    Role,
    issue_client,
    issue_server,
    make_authority,
    make_request,
    new_key,
    parse,
)
from rootstock.common.identity.credentials import Credentials, read_certificate
from rootstock.common.transport.channel import open_channel
from rootstock.coordinator.identity.authority import NetAuthority
from rootstock.coordinator.identity.members import Members, open_members
from rootstock.coordinator.registry import Access
from rootstock.deploy.client import OperatorClient
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from rootstock.protos.rootstock.operator.v1 import operator_pb2
from rootstock.protos.rootstock.operator.v1.operator_pb2_grpc import OperatorStub
from rootstock.site_agent.identity import identity_of
from tests.support.coordinator_server import (
    CALL_SECONDS,
    Lab,
    LabMaker,
    Running,
    fetch,
    messages_of,
    raising,
)

DAY = timedelta(days=1)
GET_PLAN = pb.GetPlanRequest(protocol=pb.VersionRange(minimum=1, maximum=1))


def call_with(coordinator: Running, credentials: Credentials) -> pb.GetPlanResponse:
    with open_channel(coordinator.address, credentials) as channel, raising():
        answer: pb.GetPlanResponse = FederationStub(channel).GetPlan(GET_PLAN, timeout=CALL_SECONDS)
    return answer


def authority_of(coordinator: Running) -> Authority:
    """Return the authority itself, as a thief of its key would."""
    paths = coordinator.paths
    key = load_pem_private_key(paths.authority_key.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return Authority(key, read_certificate(paths.authority))


def signed(
    coordinator: Running,
    signer: Authority,
    name: str = "cat-lab",
    days: tuple[float, float] = (0, 1),
) -> Credentials:
    """Return credentials of a site, shown with the certificate of the coordinator's authority."""
    begin, end = (datetime.now(UTC) + day * DAY for day in days)
    key = new_key()
    certificate = issue_client(signer, key.public_key(), Role.SITE, "cat-lab", begin, end - begin)
    return Credentials(key, certificate, read_certificate(coordinator.paths.authority))


def foreign(coordinator: Running) -> Credentials:
    return signed(coordinator, make_authority("animals", new_key(), datetime.now(UTC), DAY))


def expired(coordinator: Running) -> Credentials:
    return signed(coordinator, authority_of(coordinator), days=(-2, -1))


def not_yet_valid(coordinator: Running) -> Credentials:
    return signed(coordinator, authority_of(coordinator), days=(3, 4))


def unrecorded(coordinator: Running) -> Credentials:
    return signed(coordinator, authority_of(coordinator))


def the_servers_own(coordinator: Running) -> Credentials:
    key, authority = new_key(), authority_of(coordinator)
    certificate = issue_server(authority, key.public_key(), datetime.now(UTC), DAY)
    return Credentials(key, certificate, authority.certificate)


@pytest.mark.parametrize(
    ("made", "error"),
    [
        # These are closed in the handshake.
        (foreign, UnreachableError),
        (expired, UnreachableError),
        (not_yet_valid, UnreachableError),
        (the_servers_own, UnreachableError),
        (unrecorded, IdentityError),
    ],
)
def test_another_certificate_is_refused_beside_the_rightful_one(
    coordinator: Running,
    lab: LabMaker,
    made: Callable[[Running], Credentials],
    error: type[RootstockError],
) -> None:
    cat = lab("cat-lab")
    with pytest.raises(error):
        call_with(coordinator, made(coordinator))
    assert call_with(coordinator, cat.credentials).protocol == 1


def test_no_certificate_is_no_connection(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    trust = grpc.ssl_channel_credentials(cat.credentials.authority_pem)
    options = [("grpc.ssl_target_name_override", "animals.rootstock.invalid")]
    for credentials in (trust, None):
        channel = (
            grpc.insecure_channel(coordinator.address)
            if credentials is None
            else grpc.secure_channel(coordinator.address, credentials, options)
        )
        with channel, pytest.raises(grpc.RpcError) as raised:
            FederationStub(channel).GetPlan(GET_PLAN, timeout=CALL_SECONDS)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert cat.plan().net == "animals"


def test_a_stolen_certificate_is_nothing_without_its_key(
    coordinator: Running, lab: LabMaker
) -> None:
    cat = lab("cat-lab")
    stolen = Credentials(new_key(), cat.credentials.certificate, cat.credentials.authority)
    with pytest.raises((RootstockError, ValueError, grpc.RpcError)):
        call_with(coordinator, stolen)
    assert cat.plan().net == "animals"


def test_a_name_comes_from_the_certificate_and_from_nowhere_else(
    coordinator: Running, lab: LabMaker
) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    manifest = dog.teacher("dog").manifest
    with pytest.raises(IdentityError, match="of site 'dog-lab', the call of 'cat-lab'"):
        cat.begin(manifest)
    assert dog.begin(manifest).upload_id


def operator(coordinator: Running, access: Access) -> Credentials:
    """Return the credentials of an operator with some access."""
    authority = NetAuthority(coordinator.config)
    members = Members(coordinator.registry, authority, coordinator.config)
    key = new_key()
    return Credentials(key, members.issue("ann", access, key.public_key()), authority.certificate)


@pytest.mark.parametrize(
    ("access", "allowed"),
    [
        (Access.VIEW, {"GetStatus", "ListMembers"}),
        (Access.DECIDE, {"GetStatus", "ListMembers", "Grow"}),
        (Access.ADMIN, {"GetStatus", "ListMembers", "Grow", "CollectGarbage"}),
        (Access.SITE, set()),
    ],
)
def test_an_operator_may_what_the_invitation_was_for(
    coordinator: Running, access: Access, allowed: set[str]
) -> None:
    credentials = operator(coordinator, access)
    done = set()
    with open_channel(coordinator.address, credentials) as channel:
        for name in ("GetStatus", "ListMembers", "Grow", "CollectGarbage"):
            request = getattr(operator_pb2, f"{name}Request")()
            try:
                with raising():
                    getattr(OperatorStub(channel), name)(request, timeout=CALL_SECONDS)
            except IdentityError as error:
                assert "does not allow" in str(error)  # noqa: PT017  # some are refused
            else:
                done.add(name)
    assert done == allowed


def test_an_operator_is_no_site(coordinator: Running, lab: LabMaker) -> None:
    with pytest.raises(IdentityError, match=r"does not allow .*GetPlan"):
        call_with(coordinator, operator(coordinator, Access.ADMIN))
    assert lab("cat-lab").plan().net == "animals"


def test_a_certificate_is_renewed_over_the_connection_that_it_made(
    coordinator: Running, lab: LabMaker
) -> None:
    cat = lab("cat-lab")
    key = new_key()
    request = pb.RenewCertificateRequest(certificate_request=make_request(key))
    answer = cat.call("RenewCertificate", request)
    renewed = Credentials(key, parse(answer.certificate), cat.credentials.authority)
    assert identity_of(renewed).name == "cat-lab"
    assert call_with(coordinator, renewed).protocol == 1
    assert cat.plan().net == "animals"  # the former one is good until it expires


def test_renewals_are_bounded(coordinator: Running, lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    request = pb.RenewCertificateRequest(certificate_request=make_request(new_key()))
    for _ in range(10):
        cat.call("RenewCertificate", request)
    with pytest.raises(UnreachableError, match="renews its certificate too often"):
        cat.call("RenewCertificate", request)
    assert dog.call("RenewCertificate", request).certificate


class Stream:
    """One of a lab's open streams, read in a thread until it ends."""

    def __init__(self, responses: Any) -> None:
        self._responses = responses
        self.error: RootstockError | None = None
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with raising():
                for _ in self._responses:
                    pass
        except RootstockError as error:
            self.error = error
        self.ended.set()


def watching(cat: Lab) -> Stream:
    responses = cat.watch("a")
    next(responses)  # it is open
    return Stream(responses)


def uploading(cat: Lab) -> Stream:
    """Send half of a blob, and then nothing."""
    teacher = cat.teacher("cat")
    begun = cat.begin(teacher.manifest)
    blob = max(begun.missing, key=lambda each: each.size)
    silence = threading.Event()

    def half() -> Iterator[pb.UploadRequest]:
        for number, message in enumerate(messages_of(teacher, begun.upload_id, blob)):
            yield message
            if number == 3:
                silence.wait(60)

    call = cat.stub.Upload.future(half())
    call.add_done_callback(lambda _: silence.set())

    def outcome() -> Iterator[object]:
        yield call.result()

    return Stream(outcome())


def revoke(client: OperatorClient) -> None:
    client.revoke("cat-lab", "stolen")


def disable(client: OperatorClient) -> None:
    client.disable("cat-lab", "stolen")


@pytest.mark.parametrize("opened", [watching, uploading])
@pytest.mark.parametrize("end", [revoke, disable])
def test_a_live_stream_ends_when_its_lab_is_turned_away(
    coordinator: Running,
    lab: LabMaker,
    opened: Callable[[Lab], Stream],
    end: Callable[[OperatorClient], None],
) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    ending, going_on = opened(cat), watching(dog)
    with OperatorClient(coordinator.config.state) as client:
        end(client)
        # A heartbeat would come after ten seconds.
        assert ending.ended.wait(1.0), "the stream went on"
        assert isinstance(ending.error, IdentityError)
        assert "stolen" in str(ending.error)
        with pytest.raises(IdentityError, match="stolen"):
            cat.plan()
        assert not going_on.ended.is_set()
        assert dog.plan().net == "animals"


def test_what_a_lab_may_read_it_reads(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    blob = cat.plan().initial_category_module
    assert sum(len(each.data) for each in fetch(cat, blob.digest)) == blob.size


def test_an_enabled_lab_calls_again(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    with OperatorClient(coordinator.config.state) as client:
        client.disable("cat-lab", "audit")
        with pytest.raises(IdentityError, match="disabled: audit"):
            cat.plan()
        client.enable("cat-lab")
    assert cat.plan().net == "animals"


def test_a_revocation_outlives_the_coordinator(
    coordinator: Running, lab: LabMaker, state: Path
) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    coordinator.stop()
    with open_members(coordinator.config) as members:  # as the command does where none runs
        members.revoke("cat-lab", "stolen")
    again = Running(state)
    try:
        with pytest.raises(IdentityError, match="revoked: stolen"):
            call_with(again, cat.credentials)
        assert call_with(again, dog.credentials).protocol == 1
    finally:
        again.stop()
