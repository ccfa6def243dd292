"""Who may call, in which protocol version, where the server listens, how it stops."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from rootstock.common.errors import (
    AddressInUseError,
    ConfigurationError,
    NotFoundError,
    ProtocolVersionError,
    SchemaError,
    UnreachableError,
)
from rootstock.common.provenance.log import LogKind
from rootstock.common.transport.channel import open_channel
from rootstock.deploy.client import OperatorClient
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from tests.support.coordinator_server import (
    CALL_SECONDS,
    Lab,
    LabMaker,
    Running,
    operator_channel,
    raising,
)


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


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_every_address_of_the_machine_may_be_listened_at(tmp_path: Path, listen: str) -> None:
    running = Running(tmp_path / "state", listen=listen)
    try:
        port = running.address.rpartition(":")[2]
        lab = Lab("cat-lab", running.address, tmp_path / "labs")
        with open_channel(f"127.0.0.1:{port}", lab.credentials) as channel:
            answer = FederationStub(channel).GetPlan(
                pb.GetPlanRequest(protocol=pb.VersionRange(minimum=1, maximum=1)),
                timeout=CALL_SECONDS,
            )
        assert answer.protocol == 1
        lab.close()
    finally:
        running.stop()


@pytest.mark.parametrize("setting", ["listen", "join_listen"])
def test_an_address_of_another_machine_is_refused_with_the_setting(
    tmp_path: Path, setting: str
) -> None:
    with pytest.raises(
        ConfigurationError, match=rf'server\.{setting} = "192\.0\.2\.1:50051" cannot'
    ):
        Running(tmp_path / "state", **{setting: "192.0.2.1:50051"})


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
    with operator_channel(coordinator) as channel:
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
    with operator_channel(coordinator) as channel:
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {
        "rootstock.federation.v1.Federation",
        "rootstock.operator.v1.Operator",
        "grpc.health.v1.Health",
    } <= services


def test_the_operator_sees_who_watches_and_what_arrives(
    coordinator: Running, lab: LabMaker, state: Path
) -> None:
    cat = lab("cat-lab")
    lab("dog-lab")
    stream = cat.watch("a")
    next(stream)
    begun = cat.begin(cat.teacher("cat").manifest)
    with OperatorClient(state) as operator:
        answer = operator.status()
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


def test_the_log_says_whose_call_it_was(coordinator: Running, lab: LabMaker, state: Path) -> None:
    cat = lab("cat-lab")
    receipt = cat.ship(cat.teacher("cat"))
    with OperatorClient(state) as operator:
        operator.disable("cat-lab", "pause")
    log = coordinator.registry.log
    received = log.last(LogKind.RECEIVED, receipt.submission_id)
    paused = log.last(LogKind.SITE, "cat-lab")
    assert received is not None
    assert paused is not None
    assert (received.by, paused.by) == ("site/cat-lab", "operator/local")
    assert paused.facts["disabled"] == "pause"


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
