"""Two coordinators and one store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from rootstock.common.artifacts.uri import open_store
from rootstock.common.errors import ConfigurationError, ConflictError
from rootstock.coordinator.app import open_context
from rootstock.coordinator.config import CoordinatorConfig, PlanConfig
from rootstock.coordinator.paths import job_area, samples_area
from tests.support.coordinator_context import ARCHITECTURE


@pytest.fixture(params=["folder", "bucket"])
def shared(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Return the address of a store that both may write."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="nets")
    yield "s3://nets/animals"
    server.stop()


def config(tmp_path: Path, name: str, artifacts: str) -> CoordinatorConfig:
    return CoordinatorConfig(
        net="animals",
        state=tmp_path / name,
        artifacts=artifacts,
        plan=PlanConfig(architecture=ARCHITECTURE),
    )


def test_a_store_is_one_coordinator_s(tmp_path: Path, shared: str) -> None:
    areas = [job_area("mrg-0001"), samples_area("sub-0001")]
    first = config(tmp_path, "first", shared)
    with open_context(first) as context:
        pass
    # The second has no such merge: it would drop the areas at its start.
    for area in areas:
        context.store.area(area).put_bytes(b"of the first")
    with pytest.raises(ConflictError, match="of its own") as raised:
        open_context(config(tmp_path, "second", shared)).__enter__()
    assert shared in str(raised.value)
    store = open_store(shared, tmp_path / "cache")
    assert [list(store.areas(kind)) for kind in ("jobs", "samples")] == [["mrg-0001"], ["sub-0001"]]
    # As the message says; and the first goes on.
    with open_context(config(tmp_path, "second", f"{shared}-2")):
        pass
    with open_context(first):
        pass


def test_a_store_outside_the_state_folder_is_closed_to_others(tmp_path: Path) -> None:
    store = tmp_path / "store"
    opened = config(tmp_path, "first", str(store))
    with open_context(opened):
        pass
    store.chmod(0o755)  # as an earlier version left it
    with open_context(opened):
        assert store.stat().st_mode & 0o777 == 0o700
    of_others = tmp_path / "srv"
    (of_others / "www").mkdir(parents=True)
    of_others.chmod(0o755)
    with pytest.raises(ConfigurationError, match=rf"chmod 700 {of_others}"):
        open_context(config(tmp_path, "second", str(of_others))).__enter__()
    assert of_others.stat().st_mode & 0o777 == 0o755
    assert [each.name for each in of_others.iterdir()] == ["www"]
