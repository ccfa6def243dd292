import pytest
import torch

from rootstock.common.errors import ConflictError, NotFoundError, SchemaError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.nets.graph import Edge, NetTree, VersionCommit
from rootstock.common.nets.spec import AdapterSpec, TaskSpec
from tests.support.net_trees import SPEC, adapter, digest, founded, grown, ref


def test_a_tree_grows_and_keeps_all_it_had() -> None:
    parent, child = founded(), grown()
    assert {digest("a"), digest("b")} == parent.digests()
    assert {digest("a"), digest("b"), digest("c"), digest("d")} == child.digests()
    assert {digest("0")} == child.submissions()
    assert parent.edge("dog", "classification") == child.edge("dog", "classification")
    assert founded() == parent, "growing leaves the parent as it was"


def test_the_same_net_has_one_digest_however_it_grew() -> None:
    other = (
        NetTree(architecture=SPEC, tasks=(TaskSpec(name="classification"),))
        .with_task("classification", ref("b"))
        .with_category("cat", ref("c"))
        .with_category("dog", ref("a"))
        .with_edge(Edge(category="cat", task="classification", adapter=adapter("d"), error=2.0))
        .with_edge(Edge(category="dog", task="classification", error=1.5))
    )
    assert grown().content_digest() == other.content_digest()
    assert grown() == NetTree.parse(other.canonical(), what="tree")
    assert grown().content_digest() != founded().content_digest()


def test_a_tree_from_before_calibrations_keeps_its_digest() -> None:
    old = grown().canonical()
    assert b"calibration" not in old
    tree = NetTree.parse(old, what="tree")
    assert tree.edge("cat", "classification").calibration.identity
    assert tree.canonical() == old


def test_a_calibration_is_part_of_the_tree() -> None:
    calibration = Calibration(scale=0.1, bias=-1 / 3)
    edge = grown().edge("cat", "classification").model_copy(update={"calibration": calibration})
    tree = founded().with_category("cat", ref("c")).with_edge(edge)
    assert tree.content_digest() != grown().content_digest()
    assert tree.digests() == grown().digests()
    assert NetTree.parse(tree.canonical(), what="tree") == tree
    broken = tree.canonical().replace(b'"scale":0.1', b'"scale":0.0')
    with pytest.raises(SchemaError, match="scale"):
        NetTree.parse(broken, what="tree")


def test_a_missing_join_says_which_there_are() -> None:
    with pytest.raises(NotFoundError, match=r"'cat' is not joined.*dog → classification"):
        founded().edge("cat", "classification")
    empty = NetTree(architecture=SPEC, tasks=(TaskSpec(name="classification"),))
    with pytest.raises(NotFoundError, match="joined are: none"):
        empty.edge("dog", "classification")


def test_nothing_in_a_tree_can_be_replaced() -> None:
    with pytest.raises(ConflictError, match="category module 'dog'"):
        founded().with_category("dog", ref("e"))
    with pytest.raises(ConflictError, match="task module 'classification'"):
        founded().with_task("classification", ref("e"))
    with pytest.raises(ConflictError, match="already joined"):
        founded().with_edge(Edge(category="dog", task="classification"))


def test_an_edge_joins_only_what_is_there() -> None:
    with pytest.raises(NotFoundError, match=r"no category module 'cat'.*holds: dog"):
        founded().with_edge(Edge(category="cat", task="classification"))
    with pytest.raises(NotFoundError, match="no task module 'segmentation'"):
        founded().with_edge(Edge(category="dog", task="segmentation"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": [{"category": "cow", "task": "classification"}]}, "the net lacks"),
        ({"edges": [{"category": "dog", "task": "classification"}] * 2}, "two edges"),
        ({"task_modules": {"depth": ref("f").model_dump()}, "edges": []}, "none of the net's"),
    ],
)
def test_a_stored_tree_that_contradicts_itself_is_refused(
    change: dict[str, object], message: str
) -> None:
    broken = NetTree.model_construct(**{**dict(founded()), **change})
    with pytest.raises(SchemaError, match=message):
        NetTree.parse(broken.model_dump_json(warnings=False).encode(), what="tree")


def test_a_commit_names_tree_and_parent() -> None:
    commit = VersionCommit(
        tree=grown().content_digest(),
        parent=digest("9"),
        number=1,
        merge={"merge_id": "m-1", "category": "cat", "zero_sample_error": None},
        created_at="2026-01-01T00:00:00Z",
    )
    assert commit == VersionCommit.parse(commit.canonical(), what="commit")
    with pytest.raises(SchemaError, match="number"):
        VersionCommit.parse(
            b'{"tree": "%s", "number": -1, "created_at": ""}' % (b"a" * 64), what="commit"
        )


def test_a_composed_net_runs_f_then_h_then_g() -> None:
    double, negate = torch.nn.Linear(2, 2, bias=False), torch.nn.Flatten()
    torch.nn.init.eye_(double.weight).data.mul_(2)
    middle = Adapter(AdapterSpec(in_channels=2, out_channels=2)).identity_start()
    middle.beta.fill_(3)
    images = torch.ones(1, 2, 2, 2)
    assert ComposedNet(double, middle, negate)(images).tolist() == [[6.0] * 8]
    assert ComposedNet(double, None, negate)(images).tolist() == [[2.0] * 8]


def test_a_composed_net_calibrates_its_output() -> None:
    middle = Adapter(AdapterSpec(in_channels=2, out_channels=2)).identity_start()
    parts = (torch.nn.Identity(), middle, torch.nn.Flatten())
    images = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = ComposedNet(*parts)(images)
    identity = ComposedNet(*parts, Calibration())
    assert torch.equal(identity(images), plain)
    assert identity.state_dict().keys() == ComposedNet(*parts).state_dict().keys()
    calibration = Calibration(scale=0.1, bias=-1 / 3)
    calibrated = ComposedNet(*parts, calibration)
    # What a lab measures and what an application runs are the same numbers.
    assert torch.equal(calibrated(images), calibration.apply(plain))
    torch.testing.assert_close(calibrated(images), 0.1 * plain - 1 / 3)
