from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.errors import NotFoundError, SchemaError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.graph import Edge, ModuleRef
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec
from rootstock.common.weights.manifest import AdapterEntry
from rootstock.coordinator.net.compose import compose
from tests.support.grown_net import CLASSIFICATION, SEGMENTATION, GrownNet, animals


class CountingStore(LocalStore):
    """Remembers which blobs were opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []

    def local_path(self, digest: str) -> Path:
        self.opened.append(digest)
        return super().local_path(digest)


@pytest.fixture
def grown(tmp_path: Path) -> GrownNet:
    return animals(tmp_path)


def test_a_composition_opens_its_own_blobs_only(grown: GrownNet, tmp_path: Path) -> None:
    before = compose(grown.tree, grown.store, "cow", "classification")
    edge = grown.tree.edge("cow", "classification")
    assert edge.adapter is not None
    own = {
        grown.tree.category_modules["cow"].blob.digest,
        grown.tree.task_modules["classification"].blob.digest,
        edge.adapter.blob.digest,
    }
    blobs = tmp_path / "state" / "artifacts" / "blobs"
    others = [path for path in blobs.rglob("*") if path.is_file() and path.name not in own]
    assert len(others) > len(own)
    for path in others:
        path.unlink()
    store = CountingStore(tmp_path / "state" / "artifacts")
    after = compose(grown.tree, store, "cow", "classification")
    assert sorted(store.opened) == sorted(own)
    images_NCHW = torch.rand(2, 3, 32, 32)
    assert torch.equal(before(images_NCHW), after(images_NCHW))
    with pytest.raises(NotFoundError, match="has no blob"):
        compose(grown.tree, store, "cat", "classification")


def test_what_is_not_joined_names_what_is(grown: GrownNet) -> None:
    with pytest.raises(
        NotFoundError,
        match="'dog' is not joined to task 'segmentation'; joined are: dog → classification, cat",
    ):
        compose(grown.tree, grown.store, "dog", "segmentation")


def test_an_error_names_a_few_of_many_joins(grown: GrownNet) -> None:
    for place in range(20):
        module = grown.tree.category_modules["cat"]
        grown.tree = grown.tree.with_category(f"c{place}", module).with_edge(
            Edge(category=f"c{place}", task="classification")
        )
    with pytest.raises(NotFoundError, match=r"dog → classification, .* and 13 more$"):
        grown.tree.edge("dog", "segmentation")


def test_an_adapter_of_other_channels_does_not_fit(grown: GrownNet) -> None:
    adapter = Adapter(AdapterSpec(in_channels=4, out_channels=8))
    entry = AdapterEntry(spec=adapter.spec, blob=grown.put(adapter))
    edge = Edge(category="dog", task="segmentation", adapter=entry)
    tree = grown.tree.with_edge(edge)
    with pytest.raises(SchemaError, match="the join dog → segmentation takes 4 channels to 8"):
        compose(tree, grown.store, "dog", "segmentation")
    assert compose(tree, grown.store, "dog", "classification")


def test_a_map_that_is_not_the_images_size_does_not_fit(grown: GrownNet) -> None:
    """f takes 64 pixels and is split one pool higher: features fit, the map does not."""
    large = ArchitectureSpec(
        name="small-vgg", settings={"width": 4, "input_size": 64}, split="pool2"
    )
    f, _ = initial_modules(large, [CLASSIFICATION, SEGMENTATION], seed=5)
    adapter = Adapter(AdapterSpec(in_channels=8, out_channels=4))
    entry = AdapterEntry(spec=adapter.spec, blob=grown.put(adapter))
    module = ModuleRef(blob=grown.put(f), architecture=large, submission="0" * 64)
    tree = grown.tree.with_category("hen", module)
    for task in ("classification", "segmentation"):
        tree = tree.with_edge(Edge(category="hen", task=task, adapter=entry))
    with pytest.raises(SchemaError, match=r"scores 32×32 pixels, .* takes images of 64×64"):
        compose(tree, grown.store, "hen", "segmentation")
    net = compose(tree, grown.store, "hen", "classification")
    assert net(torch.rand(3, 3, 64, 64)).shape == (3, 1)
