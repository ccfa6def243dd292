from collections.abc import Iterator

import grpc
import pytest

from rootstock.common import errors
from rootstock.common.errors import RootstockError
from rootstock.common.transport.channel import open_channel
from rootstock.common.transport.status import MAX_DETAILS, abort_status, error_from_rpc
from rootstock.protos.rootstock.federation.v1.federation_pb2 import (
    BeginUploadRequest,
    GetPlanRequest,
)
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from tests.support.identities import client_credentials
from tests.support.transport_server import Server

Wire = tuple[Server, FederationStub]


def tree(root: type[RootstockError] = RootstockError) -> Iterator[type[RootstockError]]:
    if root.__module__ == "rootstock.common.errors":
        yield root
        for child in root.__subclasses__():
            yield from tree(child)


def fail(stub: FederationStub) -> RootstockError:
    with pytest.raises(grpc.RpcError) as caught:
        stub.BeginUpload(BeginUploadRequest(manifest=b"lab"), timeout=10)
    return error_from_rpc(caught.value)


def test_the_whole_tree_crosses_the_wire(wire: Wire) -> None:
    server, stub = wire
    assert len(list(tree())) == 17
    for kind in tree():
        server.error = kind("blob 'ä' has 5 bytes,\nthe limit is 4; send less")
        error = fail(stub)
        assert type(error) is kind
        assert str(error) == "blob 'ä' has 5 bytes,\nthe limit is 4; send less"
    server.error = None
    assert stub.BeginUpload(BeginUploadRequest(manifest=b"lab"), timeout=10).upload_id == "lab"


def test_a_class_that_the_map_does_not_know_crosses_as_its_base(wire: Wire) -> None:
    class Special(errors.LimitError):
        """Of one module only."""

    wire[0].error = Special("too much")
    assert type(fail(wire[1])) is errors.LimitError


def test_long_messages_are_cut_and_not_lost(wire: Wire) -> None:
    wire[0].error = errors.SchemaError("x" * 100_000)
    error = fail(wire[1])
    assert type(error) is errors.SchemaError
    assert len(str(error)) == MAX_DETAILS
    assert str(error).endswith("...")


def test_a_server_that_is_not_there_is_unreachable() -> None:
    channel = open_channel("127.0.0.1:9", client_credentials())
    error = fail(FederationStub(channel))
    channel.close()
    assert type(error) is errors.UnreachableError
    assert "UNAVAILABLE" in str(error)


def test_a_method_that_the_server_lacks_is_a_version_error(wire: Wire) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        wire[1].GetPlan(GetPlanRequest(), timeout=10)
    assert type(error_from_rpc(caught.value)) is errors.ProtocolVersionError


def test_a_message_above_the_cap_is_a_limit_error(wire: Wire) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        wire[1].BeginUpload(BeginUploadRequest(manifest=bytes(5 << 20)), timeout=10)
    assert type(error_from_rpc(caught.value)) is errors.LimitError


def test_codes_are_those_that_other_tools_expect() -> None:
    assert abort_status(errors.NotFoundError("x"))[0] is grpc.StatusCode.NOT_FOUND
    assert abort_status(errors.IdentityError("x"))[0] is grpc.StatusCode.UNAUTHENTICATED
    assert abort_status(errors.RootstockError("x"))[0] is grpc.StatusCode.INTERNAL
