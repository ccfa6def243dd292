"""Who may call, in which protocol version, where the server listens, how it stops."""

from __future__ import annotations

import socket
import stat
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from rootstock.common.errors import (
    AddressInUseError,
    ConfigurationError,
    ConflictError,
    IdentityError,
    NotFoundError,
    ProtocolVersionError,
    SchemaError,
    UnreachableError,
)
from rootstock.common.identity.keys import SigningKey
from rootstock.common.transport.auth import sign_call
from rootstock.deploy.client import OperatorClient
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from rootstock.protos.rootstock.operator.v1.operator_pb2 import GetStatusRequest, GetStatusResponse
from rootstock.protos.rootstock.operator.v1.operator_pb2_grpc import OperatorStub
from tests.support.coordinator_server import CALL_SECONDS, LabMaker, Running, plain_channel, raising

GET_PLAN = "/rootstock.federation.v1.Federation/GetPlan"


def test_a_name_belongs_to_the_first_lab_that_joins_with_it(lab: LabMaker) -> None:
    first = lab("cat-lab")
    second = lab("cat-lab", join=False)
    with pytest.raises(ConflictError, match="'cat-lab' belongs to a lab with another key; choose"):
        second.join()
    with pytest.raises(IdentityError, match="'cat-lab'"):
        second.plan()
    assert first.plan().net == "animals"


def test_an_unknown_lab_is_told_to_join(lab: LabMaker) -> None:
    with pytest.raises(IdentityError, match=r"join first \(rootstock site join\)"):
        lab("cat-lab", join=False).plan()


def test_joining_proves_that_the_lab_holds_the_key(lab: LabMaker) -> None:
    cat = lab("cat-lab", join=False)
    stolen = SigningKey.generate().public_key
    with pytest.raises(IdentityError):
        cat.call("Join", pb.JoinRequest(site="cat-lab", public_key=stolen))
    with pytest.raises(IdentityError, match="signed as 'cat-lab', the request would join 'dog-"):
        cat.call("Join", pb.JoinRequest(site="dog-lab", public_key=cat.key.public_key))


def test_strangers_who_join_in_heaps_cost_the_labs_nothing(
    coordinator: Running, lab: LabMaker
) -> None:
    cat, stranger = lab("cat-lab"), lab("cat-lab", join=False)
    for _ in range(50):
        with pytest.raises(ConflictError):
            stranger.join()
    # Joining again changes nothing, so that a repeated call is no danger and is not remembered.
    request = pb.JoinRequest(site="cat-lab", public_key=cat.key.public_key)
    proof = sign_call("cat-lab", cat.key, GET_PLAN.replace("GetPlan", "Join"), time.time())
    with plain_channel(coordinator.address) as channel, raising():
        for _ in range(2):
            FederationStub(channel).Join(request, timeout=CALL_SECONDS, metadata=proof)
    assert [site.name for site in coordinator.registry.sites.all()] == ["cat-lab"]
    assert cat.plan().net == "animals"


def test_every_call_is_signed_and_signed_once(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    request = pb.GetPlanRequest(protocol=pb.VersionRange(minimum=1, maximum=1))
    now = time.time()
    good = sign_call("cat-lab", cat.key, GET_PLAN, now)
    with plain_channel(coordinator.address) as channel:
        stub = FederationStub(channel)

        def get_plan(metadata: tuple[tuple[str, str | bytes], ...]) -> pb.GetPlanResponse:
            with raising():
                return stub.GetPlan(request, timeout=CALL_SECONDS, metadata=metadata)

        with pytest.raises(IdentityError, match="the call has no rootstock-site"):
            get_plan(())
        assert get_plan(good).protocol == 1
        with pytest.raises(IdentityError, match="was used before"):
            get_plan(good)
        with pytest.raises(IdentityError, match="its clock is"):
            get_plan(sign_call("cat-lab", cat.key, GET_PLAN, now - 3600))
        with pytest.raises(IdentityError, match="not by key"):
            get_plan(sign_call("cat-lab", cat.key, GET_PLAN.replace("GetPlan", "Watch"), now))
        # Streams, too.
        with raising_identity():
            next(iter(stub.Watch(pb.WatchRequest(instance="a"), timeout=CALL_SECONDS)))
        with raising_identity():
            stub.Upload(iter([pb.UploadRequest()]), timeout=CALL_SECONDS)


def raising_identity() -> pytest.RaisesExc[grpc.RpcError]:
    return pytest.raises(grpc.RpcError, match="the call has no rootstock-site")


@pytest.mark.parametrize(
    ("minimum", "maximum", "upgrade"), [(2, 3, "coordinator"), (0, 0, "site agent")]
)
def test_no_common_protocol_version_names_both_and_the_remedy(
    lab: LabMaker, minimum: int, maximum: int, upgrade: str
) -> None:
    cat = lab("cat-lab")
    request = pb.GetPlanRequest(
        protocol=pb.VersionRange(minimum=minimum, maximum=maximum), agent_version="9.8.7"
    )
    with pytest.raises(ProtocolVersionError) as refusal:
        cat.call("GetPlan", request)
    message = str(refusal.value)
    assert f"(9.8.7) speaks protocol versions {minimum} to {maximum}" in message
    assert "the coordinator (0.1.0) 1 to 1" in message
    assert f"upgrade the {upgrade}" in message


def test_a_newer_agent_that_still_speaks_our_version_is_served(
    coordinator: Running, lab: LabMaker
) -> None:
    request = pb.GetPlanRequest(protocol=pb.VersionRange(minimum=1, maximum=7))
    answer = lab("cat-lab").call("GetPlan", request)
    assert answer.protocol == 1
    assert answer.plan_digest == coordinator.plan.content_digest()


def test_a_port_in_use_is_named_with_the_remedy(coordinator: Running, tmp_path: Path) -> None:
    with pytest.raises(AddressInUseError, match=f"{coordinator.address}; stop it, or set"):
        Running(tmp_path / "second", listen=coordinator.address)
    with socket.socket() as other:  # not ours: any program's
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressInUseError, match=address):
            Running(tmp_path / "third", listen=address)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "example.org:50051"])
def test_plaintext_is_for_loopback_only(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1"):
        Running(tmp_path / "state", listen=listen)


def test_the_address_is_written_down_and_free_after_stopping(
    coordinator: Running, state: Path, tmp_path: Path
) -> None:
    assert (state / "address").read_text() == coordinator.address
    coordinator.stop()
    again = Running(tmp_path / "again", listen=coordinator.address)
    assert again.address == coordinator.address
    again.stop()


def test_health_tells_serving_from_draining_and_draining_ends_watches(
    coordinator: Running, lab: LabMaker
) -> None:
    with plain_channel(coordinator.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "rootstock.federation.v1.Federation", "rootstock.operator.v1.Operator"):
            answer = health.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS
            )
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        states = health.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
        assert next(states).status == health_pb2.HealthCheckResponse.SERVING
        stream = lab("cat-lab").watch("a")
        assert next(stream).HasField("heartbeat")
        coordinator.stop()
        assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(UnreachableError, match="the coordinator stops"), raising():
            next(stream)


def test_reflection_shows_the_services(coordinator: Running) -> None:
    with plain_channel(coordinator.address) as channel:
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {
        "rootstock.federation.v1.Federation",
        "rootstock.operator.v1.Operator",
        "grpc.health.v1.Health",
    } <= services


def test_the_operator_has_a_token_of_its_own(
    coordinator: Running, lab: LabMaker, state: Path
) -> None:
    cat = lab("cat-lab")
    lab("dog-lab")
    stream = cat.watch("a")
    next(stream)
    begun = cat.begin(cat.teacher("cat").manifest)
    path = state / "operator-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with plain_channel(coordinator.address) as channel:
        stub = OperatorStub(channel)

        def status(metadata: tuple[tuple[str, str], ...]) -> GetStatusResponse:
            with raising():
                return stub.GetStatus(GetStatusRequest(), timeout=CALL_SECONDS, metadata=metadata)

        for wrong in ((), (("authorization", "Bearer "),), (("authorization", "Bearer wrong"),)):
            with pytest.raises(IdentityError, match="operator-token"):
                status(wrong)
        answer = status((("authorization", f"Bearer {path.read_text()}"),))
    assert (answer.net, answer.net_version) == ("animals", 0)
    assert answer.mlflow_experiment_id == "42"
    assert {site.name: site.watching for site in answer.sites} == {
        "cat-lab": True,
        "dog-lab": False,
    }
    (submission,) = answer.submissions
    assert (submission.submission_id, submission.state) == (begun.upload_id, "receiving")
    assert submission.bytes_received == 0
    assert submission.bytes_total == sum(blob.size for blob in begun.missing)
    stream.cancel()


def test_the_operators_words_go_over_the_wire_and_errors_come_back_as_they_are(
    coordinator: Running, state: Path
) -> None:
    with OperatorClient(state) as operator:
        assert operator.grow() == []
        with pytest.raises(NotFoundError, match="no merge 'mrg-0001'"):
            operator.decide("mrg-0001", approve=False, reason="wrong labels")
        with pytest.raises(SchemaError, match="the reason is empty"):
            operator.decide("mrg-0001", approve=False, reason="  ")
        with pytest.raises(NotFoundError, match="no net version 1; the head is not founded yet"):
            operator.roll_back(1, reason="wrong labels", and_later=False)
