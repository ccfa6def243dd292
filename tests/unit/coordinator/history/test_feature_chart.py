"""The figure of a join's features: real modules of a small net, out of a store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.graph import Edge, NetTree
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights.manifest import AdapterEntry
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.history.charts import draw_features, has_features
from rootstock.coordinator.history.files import FEATURES, file_names, write_files
from rootstock.coordinator.history.recorder import gather
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.feature_space import feature_spaces, rank_correlation
from rootstock.coordinator.jobs.inspection import inspection_job
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import Merge
from tests.support.in_process_jobs import inspected
from tests.support.merges import evaluating, merge_runner, report, with_policy

pytestmark = pytest.mark.slow


@pytest.fixture
def merged(context: CoordinatorContext, tmp_path: Path) -> tuple[CoordinatorContext, Merge]:
    """Version 2 joins dog, whose teacher is the founder's very net; its adapter does nothing."""
    generous = with_policy(context, max_error=100.0, max_above_teacher=100.0)
    merge = evaluating(generous, tmp_path)
    report(generous, merge)
    asyncio.run(merge_runner(generous).carry(merge.id))
    return generous, generous.registry.merges.get(merge.id)


def tree(context: CoordinatorContext) -> NetTree:
    found = context.tree()
    assert found is not None
    return found


def test_teachers_that_are_the_net_agree_with_it_wholly(
    merged: tuple[CoordinatorContext, Merge],
) -> None:
    context, _ = merged
    spaces = feature_spaces(tree(context), context.store, "dog", "classification")
    assert np.shape(spaces.joined.positions) == (256, 2)
    assert spaces.bare is not None
    assert spaces.bare.agreement == pytest.approx(1.0), "f and g were trained together"
    assert spaces.joined.agreement == pytest.approx(1.0)
    assert np.allclose(spaces.joined.positions, spaces.bare.positions, atol=1e-5)
    assert np.std(spaces.teacher_answers) > 0
    # The founder has no adapter, so there is nothing to leave out.
    founder = feature_spaces(tree(context), context.store, "cat", "classification")
    assert founder.bare is None
    # The first axis holds more of the spread than the second.
    spread = np.std(founder.joined.positions, 0)
    assert spread[0] >= spread[1]


def test_an_adapter_that_mixes_channels_up_is_seen(
    merged: tuple[CoordinatorContext, Merge], tmp_path: Path
) -> None:
    context, _ = merged
    net = tree(context)
    spec = AdapterSpec(in_channels=4, out_channels=4)
    mixed = Adapter(spec).identity_start()
    with torch.no_grad():
        for weight in mixed.parameters():
            weight.copy_(-weight.roll(1, 0))
    blob = put_tensors(context.store, mixed.state_dict())
    odd = net.with_category("odd", net.category_modules["dog"]).with_edge(
        Edge(category="odd", task="classification", adapter=AdapterEntry(spec=spec, blob=blob))
    )
    spaces = feature_spaces(odd, context.store, "odd", "classification")
    assert spaces.bare is not None
    assert spaces.bare.agreement == pytest.approx(1.0)
    assert spaces.joined.agreement < 0.9


def test_the_figure_is_among_a_merges_files_and_in_its_report(
    merged: tuple[CoordinatorContext, Merge], tmp_path: Path
) -> None:
    context, merge = merged
    record = gather(context.net, context.config, merge)
    assert has_features(record)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_files(record, tmp_path / name)
    paths = {path.name: path for path in (tmp_path / "one").iterdir()}
    assert paths.keys() == file_names(record)
    assert all(p.read_bytes() == (tmp_path / "two" / n).read_bytes() for n, p in paths.items())
    assert "The join from the inside" in paths["report.html"].read_text("utf-8")
    with Image.open(paths[FEATURES]) as image:
        assert image.width > 1000
    founding = next(m for m in context.registry.merges.all() if m.operation == "found")
    assert not has_features(gather(context.net, context.config, founding))


def test_features_that_cannot_be_computed_cost_the_picture_only(
    merged: tuple[CoordinatorContext, Merge], tmp_path: Path
) -> None:
    """The teacher's task module is gone: the join answers, and nobody says what it should."""
    context, merge = merged
    record = gather(context.net, context.config, merge)
    whole = draw_features(record, tmp_path / "a.png")
    manifest = context.teacher_of(tree(context).category_modules["dog"].submission)
    context.store.delete(manifest.content_digest())
    found = inspected(inspection_job(merge, tree(context), StatePaths(context.config)))
    assert found.fingerprint
    assert found.features is None
    assert manifest.content_digest() in found.no_features
    said = record.model_copy(update={"features": None, "no_features": found.no_features})
    with Image.open(whole) as one, Image.open(draw_features(said, tmp_path / "b.png")) as other:
        assert other.height < one.height


def test_ranks_are_what_is_compared() -> None:
    y = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert rank_correlation(y, y.exp()) == pytest.approx(1.0)
    assert rank_correlation(y, -y) == pytest.approx(-1.0)
    assert rank_correlation(y, torch.zeros(4)) == 0.0
