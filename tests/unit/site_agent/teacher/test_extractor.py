"""A lab whose category module is of another architecture than its plan's."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rootstock.common.errors import ConfigurationError, SchemaError
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    initial_modules,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.protocol import Plan
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.admission import admit
from rootstock.common.weights.manifest import Recipe, TeacherManifest
from rootstock.site_agent.config import L2tSource, SiteConfig, StatisticsConfig, TrainingConfig
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.recipes.sources import SourceNet, load_sources
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.spool.spool import Spool
from rootstock.site_agent.teacher.package import build, write_blob
from rootstock.site_agent.teacher.statistics import statistics
from rootstock.site_agent.teacher.train import initial_teacher
from rootstock.site_agent.transfer.rank_sources import candidates, rank
from rootstock.site_agent.transfer.snapshot import LabSnapshot, stored_teachers
from rootstock.site_agent.wire.client import Published
from tests.support import digits_lab

TASK = digits_lab.TASK.name
SIDE = {"input_size": 32}
SETTINGS = {**SIDE, "widen": 2, "blocks": 1}
WIDE = ArchitectureSpec(name="wide-resnet", split="block2_1", settings=SETTINGS)
"""16×16 maps of 64 channels; at the plan's split they are 16×16 of 8."""


def config(state: Path, extractor: ArchitectureSpec | None = WIDE, **training: Any) -> SiteConfig:
    return digits_lab.config(state, training=TrainingConfig(extractor=extractor, **training))


def started(
    state: Path, extractor: ArchitectureSpec | None, *, site: str = "lab-0", **plan: Any
) -> Teacher:
    """Return what a lab's training starts from."""
    state.mkdir()
    published = digits_lab.plan(state / "plan").model_copy(update=plan)
    settings = config(state, extractor).model_copy(update={"site": site})
    return initial_teacher(digits_lab.lab(settings, published))


def alike(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_labs_of_one_plan_start_alike_and_those_of_another_do_not(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = started(tmp_path / "one", WIDE)
    torch.manual_seed(2)
    two = started(tmp_path / "two", WIDE, site="lab-1")
    other = started(tmp_path / "other", WIDE, net="other")
    assert one.extractor == WIDE
    assert [name for name, _ in one.category_module.named_children()][-1] == "proj"
    assert alike(one.category_module, two.category_module)
    assert not alike(one.category_module, other.category_module)
    # g is the plan's in any case.
    for net in (one, two, other):
        assert alike(net.task_modules["classification"], digits_lab.start().task_modules[TASK])


def test_without_an_extractor_training_starts_from_the_plan_s_weights(tmp_path: Path) -> None:
    plain = started(tmp_path / "plain", None)
    named = started(tmp_path / "named", digits_lab.SPEC)  # the plan's own architecture is no other
    for net in (plain, named):
        assert net.extractor is None
        assert alike(net.category_module, digits_lab.start().category_module)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "block3_1"}, "maps of 8×8, at split 'pool1' .* they are 16×16; choose another"),
        ({"settings": SETTINGS | {"input_size": 64}}, r"images of \(3, 64, 64\).*takes \(3, 32"),
        ({"extractor": WIDE}, "has an extractor of its own; name that one alone"),
        ({"name": "resnet9"}, "unknown architecture 'resnet9'"),
    ],
)
def test_one_that_does_not_fit_is_named_as_the_setting_that_it_is(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^training.extractor: .*{said}"):
        started(tmp_path / "lab", WIDE.model_copy(update=changes))


def test_the_run_s_digest_is_what_it_was_without_an_extractor(tmp_path: Path) -> None:
    def digest(extractor: ArchitectureSpec | None) -> str:
        return config(tmp_path, extractor).run_digest("ab" * 32)

    # As written before there were extractors: a teacher that was shipped is not trained again.
    assert digest(None) == "70a39a425727af916db79e9c8042faf72b6d7f5c6e40f7d10faaf710398c6733"
    wider = WIDE.model_copy(update={"settings": SETTINGS | {"widen": 3}})
    assert len({digest(None), digest(WIDE), digest(wider)}) == 3


@cache
def trained(folder: Path, plan: ArchitectureSpec = digits_lab.SPEC) -> Teacher:
    """Train a little: with BatchNorm statistics of digits, and the plan's g above."""
    spec = plan.model_copy(update={"extractor": WIDE})
    f, heads = initial_modules(spec, [digits_lab.TASK], 0)
    recipe = SupervisedRecipe(TrainingConfig(epochs=1, extractor=WIDE), digits_lab.CPU)
    few = replace(
        digits_lab.data(0), training=digits_lab.data(0).training.subset(list(range(0, 216, 4)))
    )
    start = Teacher(f, heads, extractor=WIDE)
    return recipe.train(start, TrainingRun(few, folder))


def built(root: Path, plan: Plan, net: Teacher, settings: SiteConfig) -> TeacherManifest:
    recipe = Recipe(name="supervised", settings=settings.training.describe())
    return build(digits_lab.lab(settings, plan), net, digits_lab.data(0), recipe, root)


def test_what_is_shipped_names_the_extractor_and_the_gate_takes_it(tmp_path: Path) -> None:
    plan = digits_lab.plan(tmp_path / "plan")
    manifest = built(tmp_path, plan, trained(tmp_path / "training"), config(tmp_path))
    assert manifest.architecture == digits_lab.SPEC.model_copy(update={"extractor": WIDE})
    # The architecture says it once; the recipe's settings are flat.
    assert not [key for key in manifest.recipe.settings if key.startswith("extractor")]
    assert manifest.statistics is not None
    named = {name.partition("/")[2] for name in manifest.statistics.tensors}
    assert {"conv1", "block2_1.conv2", "proj", "conv2_1"} <= named
    assert manifest.statistics.tensors["mean/proj"].shape == (2, 8)
    admit(manifest, plan, lambda digest: tmp_path / digest)


def test_statistics_of_the_projection_are_those_of_the_features(tmp_path: Path) -> None:
    net = trained(tmp_path)
    images = digits_lab.data(0).training.subset(list(range(0, 200, 5)))
    named = statistics(net, images, StatisticsConfig())
    with torch.no_grad():
        x_NCHW = net.category_module(normalise(images.images_NCHW))
    variance_C, mean_C = torch.var_mean(x_NCHW, (0, 2, 3), correction=0)
    assert torch.allclose(named["mean/proj"], mean_C, atol=1e-4)
    assert torch.allclose(named["variance/proj"], variance_C, rtol=1e-3)


def test_of_layers_of_one_name_the_extractor_s_are_measured(tmp_path: Path) -> None:
    """A plan's g begins with block2_2; an extractor that ends with block2_2 has one of its own."""
    resnet = ArchitectureSpec(
        name="small-resnet", split="block2_1", settings={**SIDE, "width": 4, "blocks": 2}
    )
    upper = WIDE.model_copy(update={"split": "block2_2", "settings": SETTINGS | {"blocks": 2}})
    spec = resnet.model_copy(update={"extractor": upper})
    f, heads = initial_modules(spec, [digits_lab.TASK], 0)
    net = Teacher(f.eval(), {TASK: heads[TASK].eval()}, extractor=upper)
    images = digits_lab.data(0).training.subset(list(range(0, 80, 10)))
    named = statistics(net, images, StatisticsConfig())
    assert named["mean/block2_2.conv1"].shape == (64,)  # g's has 8
    assert named["mean/block3_1.conv1"].shape == (16,)
    start = initial_modules(resnet, [digits_lab.TASK], 0)
    plan = digits_lab.plan(tmp_path / "plan").model_copy(
        update={
            "architecture": resnet,
            "initial_category_module": write_blob(tmp_path, start[0].state_dict()),
            "initial_task_modules": {TASK: write_blob(tmp_path, start[1][TASK].state_dict())},
        }
    )
    manifest = built(tmp_path, plan, net, config(tmp_path, upper))
    admit(manifest, plan, lambda digest: tmp_path / digest)


def test_sources_are_ranked_against_the_extractor_s_initial_weights(tmp_path: Path) -> None:
    plan = digits_lab.plan(tmp_path / "plan")
    settings = config(tmp_path)
    net = trained(tmp_path / "training")
    spool = Spool(tmp_path / "spool", digits_lab.fail, digits_lab.COORDINATOR.public_key)
    with spool.staging() as staging:
        manifest = built(staging, plan, net, settings)
        spool.commit(staging, manifest, "run")
    (own,) = stored_teachers(tmp_path / "spool")
    lab = LabSnapshot(
        config=settings,
        published=Published(plan, plan.content_digest(), None),
        device=digits_lab.CPU,
        download=lambda blob, folder: tmp_path / folder / blob.digest,
        warn=digits_lab.fail,
        own=own,
        others=(own,),
    )
    assert lab.net().extractor == WIDE
    # The plan's own f fits below the same g, and is a source like any other.
    spec = digits_lab.SPEC
    plain = SourceNet("plain", spec, digits_lab.start().category_module.eval())
    sources = candidates(lab, [plain])
    found = rank(lab, sources, digits_lab.TASK, 0, lambda *_: None)
    assert {row.source for row in found.sources} == {"plain", sources[1].name}
    own_row, initial = found.references
    same = next(row for row in found.sources if row.source == sources[1].name)
    assert same.at_once == own_row.at_once
    assert initial.at_once.holdout_loss > own_row.at_once.holdout_loss
    misfit = SourceNet("misfit", spec.model_copy(update={"split": "pool2"}), plain.category_module)
    with pytest.raises(SchemaError, match=r"own net is 'small-vgg'.*extractor 'wide-resnet', spl"):
        candidates(lab, [misfit])


def test_a_net_with_an_extractor_can_be_learned_from(tmp_path: Path) -> None:
    net = trained(tmp_path / "training")
    spec = digits_lab.SPEC.model_copy(update={"extractor": WIDE})
    f, g = net.category_module.state_dict(), net.task_modules[TASK].state_dict()
    shape = input_shape(spec)
    for name, tensors in (("alone", f), ("whole", f | g)):
        path = tmp_path / name
        safetensors_io.write(path, tensors)
        source = L2tSource(name=name, path=path, architecture=spec)
        loaded = load_sources((source,), "all", shape, digits_lab.CPU)[name]
        assert loaded.description.startswith("wide-resnet ")
        x_NCHW = torch.rand(1, *shape)
        expected = net.category_module(x_NCHW)
        if name == "whole":
            expected = net.task_modules[TASK](expected)
        assert torch.allclose(loaded.source(x_NCHW).outputs, expected, atol=1e-5)


def test_layers_of_one_name_in_f_and_above_it(tmp_path: Path) -> None:
    resnet = ArchitectureSpec(
        name="small-resnet", split="block2_1", settings={**SIDE, "width": 4, "blocks": 2}
    )
    upper = WIDE.model_copy(update={"split": "block2_2", "settings": SETTINGS | {"blocks": 2}})
    spec = resnet.model_copy(update={"extractor": upper})
    f, g = build_category_module(spec), build_head(spec, 1)
    path, shape = tmp_path / "net", input_shape(spec)
    source = L2tSource(name="net", path=path, architecture=spec)
    safetensors_io.write(path, f.state_dict())  # block2_2 does not make it a whole net
    load_sources((source,), "all", shape, digits_lab.CPU)
    safetensors_io.write(path, g.state_dict() | f.state_dict())
    with pytest.raises(ConfigurationError, match="'block2_2', which a file can hold once only"):
        load_sources((source,), "all", shape, digits_lab.CPU)
