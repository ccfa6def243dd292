"""What labs are told of auxiliary heads over the wire, and what the gate makes of them."""

from __future__ import annotations

import pytest

from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import build_head, initialise
from rootstock.common.protocol import PROTOCOL_MAXIMUM, PROTOCOL_MINIMUM, Heads
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.plan.heads import HeadsFile, publish, retire
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from tests.support.coordinator_server import Lab, LabMaker, Running, fetch


def told(lab: Lab) -> Heads | None:
    versions = pb.VersionRange(minimum=PROTOCOL_MINIMUM, maximum=PROTOCOL_MAXIMUM)
    answer = lab.call("GetPlan", pb.GetPlanRequest(protocol=versions, agent_version="test"))
    return Heads.parse(answer.heads, what="heads") if answer.heads else None


def published(coordinator: Running, seed: int) -> Heads:
    """Publish a head that no lab could otherwise read."""
    head = initialise(build_head(coordinator.plan.architecture, 4), seed)
    entry = put_tensors(coordinator.store, head.state_dict())
    file = HeadsFile(coordinator.paths.heads)
    return publish(file, coordinator.registry, f"seed {seed}", {}, entry)


def test_heads_are_handed_out_until_they_are_retired(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    assert told(cat) is None
    heads = published(coordinator, 1)
    assert told(cat) == heads
    assert heads.rotation is not None
    got = fetch(cat, heads.rotation.digest, 0)
    assert sum(len(message.data) for message in got) == heads.rotation.size
    newer = published(coordinator, 2)
    assert told(cat) == newer
    retire(HeadsFile(coordinator.paths.heads), coordinator.registry, "test")
    assert told(cat) is None


def test_a_lab_on_old_heads_is_told_what_to_do(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    old = published(coordinator, 1).content_digest()
    fitting = cat.teacher("cat", heads=old)
    assert cat.begin(fitting.manifest).upload_id
    new = published(coordinator, 2).content_digest()
    late = cat.teacher("cat", seed=2, heads=old)
    with pytest.raises(SchemaError, match=f"below auxiliary heads {old}, published now are {new}"):
        cat.begin(late.manifest)
    # What was begun in time goes on; what was trained without heads is no matter.
    assert cat.begin(fitting.manifest).upload_id
    assert cat.begin(cat.teacher("cat", seed=3).manifest).upload_id
    retire(HeadsFile(coordinator.paths.heads), coordinator.registry, "test")
    with pytest.raises(SchemaError, match="published now are none"):
        cat.begin(cat.teacher("cat", seed=4, heads=new).manifest)
