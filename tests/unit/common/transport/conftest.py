from collections.abc import Iterator
from pathlib import Path

import pytest

from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from tests.support.transport_server import Server, serving


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[tuple[Server, FederationStub]]:
    with serving(tmp_path / "server") as pair:
        yield pair
