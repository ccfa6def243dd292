"""Recipe `l2t` on real digits: what older nets have learned, from files of every kind."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from rootstock.common.errors import ConfigurationError, DataError, TransplantError
from rootstock.common.l2t.matching import Pair
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    build_task_module,
    feature_shape,
    initialise,
    input_shape,
)
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.card import NetCard, card_path
from rootstock.common.weights.manifest import Recipe
from rootstock.site_agent.config import L2tConfig, L2tSource, TrainingConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.recipes.fit import CHECKPOINT
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.recipes.l2t import L2tRecipe, lambda_metrics
from rootstock.site_agent.recipes.sources import load_sources
from rootstock.site_agent.state import Stopped
from rootstock.site_agent.teacher.package import build
from tests.support import digits_lab
from tests.support.layers import weight

SHAPE = input_shape(digits_lab.SPEC)
OLD = ArchitectureSpec(
    name="small-resnet", split="block2_1", settings={"input_size": 32, "width": 4, "blocks": 1}
)
CONFIG = TrainingConfig(
    recipe="l2t",
    optimiser="sgd",
    learning_rate=0.01,
    batch_size=16,
    epochs=3,
    checkpoint_epochs=1,
    l2t={"sources": [{"name": "old", "path": "/old", "architecture": OLD}]},
)


@cache
def old(folder: Path, *, alone: bool = False) -> L2tSource:
    """Return a net of another architecture, or its category module alone, as a file."""
    f, g = initialise(build_category_module(OLD), 3), initialise(build_head(OLD, 6), 4)
    path = folder / f"old-{alone}.safetensors"
    safetensors_io.write(path, f.state_dict() | ({} if alone else g.state_dict()))
    return L2tSource(name="old", path=path, architecture=OLD)


def config(source: L2tSource, **changes: Any) -> TrainingConfig:
    l2t = L2tConfig.model_validate({"sources": (source,), **changes})
    return CONFIG.model_copy(update={"l2t": l2t})


def recipe(training: TrainingConfig) -> L2tRecipe:
    l2t = training.l2t
    sources = load_sources(l2t.sources, l2t.pairs, SHAPE, digits_lab.CPU)
    return L2tRecipe(training, digits_lab.CPU, sources, SHAPE)


@cache
def few() -> LabData:
    """Return data of which an epoch has three batches."""
    data = digits_lab.data(1)
    positive = torch.nonzero(data.training.labels_N).flatten().tolist()[:24]
    negative = torch.nonzero(data.training.labels_N == 0).flatten().tolist()[:24]
    return replace(data, training=data.training.subset(positive + negative))


def train(made: L2tRecipe, folder: Path) -> Teacher:
    return made.train(digits_lab.start(), TrainingRun(few(), folder))


def assert_same(one: Teacher, other: Teacher) -> None:
    assert one.numbers == other.numbers
    for name, module in one.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, other.modules()[name].state_dict()[key]), (name, key)


def test_an_interruption_leaves_no_trace(tmp_path: Path) -> None:
    made = recipe(config(old(tmp_path), meta_learning_rate=0.01))
    whole = train(made, tmp_path / "whole")
    stop = threading.Event()

    def halfway(step: int, steps: int, _message: str) -> None:
        if step == steps // 2:
            stop.set()

    with pytest.raises(Stopped):
        made.train(digits_lab.start(), TrainingRun(few(), tmp_path / "cut", halfway, stop))
    assert_same(train(made, tmp_path / "cut"), whole)
    assert_same(train(made, tmp_path / "cut"), whole)  # and what is done is not done again
    assert whole.numbers.keys() == {
        f"lambda/old/{m}->{n}"
        for m in ("block1_1", "block2_1", "block3_1")
        for n in ("relu1_2", "classification/relu2_2", "classification/relu3_2")
    }
    assert len({round(value, 4) for value in whole.numbers.values()}) == 9
    assert not any(p.requires_grad for p in whole.category_module.parameters())


def test_meta_networks_and_matching_have_their_say(tmp_path: Path) -> None:
    """Other weights come of another β and of another meta rate; the same of the same."""
    one_epoch = {"epochs": 1}
    outcomes = []
    changed: tuple[dict[str, object], ...] = (
        {},
        {},
        {"beta": 0.2},
        {"meta_learning_rate": 0.01},
        {"pairs": "single"},
    )
    for place, changes in enumerate(changed):
        training = config(old(tmp_path), **changes).model_copy(update=one_epoch)
        outcomes.append(train(recipe(training), tmp_path / str(place)))
    assert_same(outcomes[0], outcomes[1])
    weights = [weight(teacher.category_module, "conv1_1") for teacher in outcomes]
    for other in weights[2:]:
        assert not torch.equal(other, weights[0])
    assert list(outcomes[4].numbers) == ["lambda/old/block3_1->classification/relu3_2"]


def test_checkpoints_of_other_sources_are_left_alone(tmp_path: Path) -> None:
    training = config(old(tmp_path)).model_copy(update={"epochs": 1})
    train(recipe(training), tmp_path / "run")
    path = training.l2t.sources[0].path
    f, g = initialise(build_category_module(OLD), 8), initialise(build_head(OLD, 6), 9)
    old.cache_clear()
    safetensors_io.write(path, f.state_dict() | g.state_dict())
    train(recipe(training), tmp_path / "run")
    assert len(list((tmp_path / "run").glob(f"*/{CHECKPOINT}"))) == 2


def test_a_net_as_a_file_is_that_net(tmp_path: Path) -> None:
    x_NCHW = torch.randn(2, *SHAPE)
    (whole,) = load_sources((old(tmp_path),), "all", SHAPE, digits_lab.CPU).values()
    seen = whole.source(x_NCHW)
    f, g = initialise(build_category_module(OLD), 3), initialise(build_head(OLD, 6), 4)
    torch.testing.assert_close(seen.outputs, g.eval()(f.eval()(x_NCHW)))
    assert list(seen.features) == ["block1_1", "block2_1", "block3_1"]
    (alone,) = load_sources((old(tmp_path, alone=True),), "all", SHAPE, digits_lab.CPU).values()
    assert list(alone.source(x_NCHW).features) == ["block1_1"]
    torch.testing.assert_close(alone.source(x_NCHW).outputs, f(x_NCHW))


def test_an_exported_net_is_a_source(tmp_path: Path) -> None:
    x_NCHW = torch.randn(2, *SHAPE)
    source, net = exported(tmp_path)
    (loaded,) = load_sources((source,), "all", SHAPE, digits_lab.CPU).values()
    torch.testing.assert_close(loaded.source(x_NCHW).outputs, net(x_NCHW))
    assert list(loaded.source.shapes) == [
        "category_module.block1_1", "task_module.relu2_2", "task_module.relu3_2",
    ]  # fmt: skip


def exported(folder: Path) -> tuple[L2tSource, nn.Module]:
    """Write what `rootstock net export` writes: a ResNet's f, an adapter, a VGG's g."""
    head = ArchitectureSpec(name="small-vgg", split="pool1", settings={"width": 8})
    spec = AdapterSpec(in_channels=feature_shape(OLD)[0], out_channels=feature_shape(head)[0])
    first = OLD.model_copy(update={"split": "block2_1"})
    net = ComposedNet(
        initialise(build_category_module(first), 1),
        Adapter(spec),
        initialise(build_task_module(head, digits_lab.TASK), 2),
        Calibration(scale=2.0, bias=0.5),
    ).eval()
    path = folder / "net.safetensors"
    card = NetCard(
        category="one",
        task=digits_lab.TASK,
        category_architecture=first,
        task_architecture=head,
        input_shape=SHAPE,
        adapter=spec,
        calibration=Calibration(scale=2.0, bias=0.5),
        error=None,
        digests={},
        blob=safetensors_io.write(path, net.state_dict()),
        how_to_load="",
    )
    card_path(path).write_text(card.model_dump_json())
    return L2tSource(name="net", kind="export", path=path), net


def test_torchvisions_models_are_sources(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.get_model("resnet18", weights=None, num_classes=7)
    path = tmp_path / "resnet18.safetensors"
    safetensors_io.write(path, net.state_dict())
    source = L2tSource(name="tv", kind="torchvision", model="resnet18", path=path)
    (loaded,) = load_sources((source,), "all", SHAPE, digits_lab.CPU).values()
    x_NCHW = torch.randn(2, *SHAPE)
    torch.testing.assert_close(loaded.source(x_NCHW).outputs, net.eval()(x_NCHW))
    assert list(loaded.source.shapes) == ["relu", "layer1", "layer2", "layer3"]
    pairs = (("tv", "layer2.0.conv1", "pool1"),)
    (loaded,) = load_sources((source,), pairs, SHAPE, digits_lab.CPU).values()
    assert list(loaded.source.shapes) == ["layer2.0.conv1"]


def refused(each: L2tSource, pairs: Any = "all") -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_sources((each,), pairs, SHAPE, digits_lab.CPU)
    return str(caught.value)


def test_sources_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    good = old(tmp_path)
    gone = good.model_copy(update={"path": tmp_path / "gone.safetensors"})
    assert "source 'old'" in refused(gone)
    assert "gone.safetensors: there is no such file" in refused(gone)
    pickled = tmp_path / "pickled.safetensors"
    torch.save(nn.Linear(2, 2).state_dict(), pickled)
    assert "cannot be loaded" in refused(good.model_copy(update={"path": pickled}))
    wide = OLD.model_copy(update={"settings": {"input_size": 32, "width": 8, "blocks": 1}})
    assert "size mismatch" in refused(good.model_copy(update={"architecture": wide}))
    unknown = OLD.model_copy(update={"name": "alexnet"})
    assert "unknown architecture 'alexnet'" in refused(
        good.model_copy(update={"architecture": unknown})
    )
    values = {"name": "tv", "kind": "torchvision", "path": good.path}
    assert "Unknown model" in refused(L2tSource(**values, model="resnet19"))
    assert "Missing key" in refused(L2tSource(**values, model="resnet18"))
    source, _ = exported(tmp_path)
    source.path.write_bytes(source.path.read_bytes()[:-4] + b"\0\1\2\3")
    assert "SHA-256" in refused(source)
    card_path(source.path).unlink()
    assert "card.json" in refused(source)


def test_a_source_for_other_images_is_named(tmp_path: Path) -> None:
    vgg = ArchitectureSpec(name="small-vgg", split="pool1", settings={"input_size": 64, "width": 4})
    path = tmp_path / "vgg.safetensors"
    modules = (build_category_module(vgg), build_head(vgg, 3))
    safetensors_io.write(path, modules[0].state_dict() | modules[1].state_dict())
    said = refused(L2tSource(name="old", path=path, architecture=vgg))
    assert "cannot be read with images of 3×32×32" in said


def test_pairs_that_do_not_exist_are_named(tmp_path: Path) -> None:
    said = refused(old(tmp_path), (("old", "block9_1", "relu1_2"),))
    assert "no feature map at 'block9_1'; it has at conv1" in said
    for pair, expected in (
        (("old", "block1_1", "relu2_2"), r"l2t.pairs.*target has no feature map at 'relu2_2'"),
        (("new", "block1_1", "relu1_2"), "no source 'new'; there are old"),
    ):
        training = config(old(tmp_path), pairs=(("old", "block1_1", "relu1_2"), pair))
        with pytest.raises(ConfigurationError, match=expected):
            train(recipe(training), tmp_path)


def test_fewer_images_than_a_batch_are_too_few(tmp_path: Path) -> None:
    data = replace(few(), training=few().training.subset([0, 1, 2, 24, 25, 26]))
    made = recipe(config(old(tmp_path)))
    with pytest.raises(DataError, match="6 training images do not make one batch of 16"):
        made.train(digits_lab.start(), TrainingRun(data, tmp_path))


def test_training_that_diverges_says_so(tmp_path: Path) -> None:
    made = recipe(config(old(tmp_path)).model_copy(update={"learning_rate": 10.0}))
    with pytest.raises(TransplantError, match="diverged; lower the learning rate"):
        train(made, tmp_path)


def test_the_manifest_holds_lambda_and_no_path(tmp_path: Path) -> None:
    training = config(old(tmp_path)).model_copy(update={"epochs": 1})
    made = recipe(training)
    teacher = train(made, tmp_path / "run")
    (tmp_path / "blobs").mkdir()
    lab = digits_lab.lab(digits_lab.config(tmp_path), digits_lab.plan(tmp_path / "plan"))
    recipe_entry = Recipe(name=made.name, settings=made.settings())
    manifest = build(lab, teacher, few(), recipe_entry, tmp_path / "blobs")
    assert 0 < manifest.metrics["lambda/old/block3_1->relu1_2"] < 6
    assert manifest.recipe.name == "l2t"
    assert manifest.recipe.settings["l2t.inner_steps"] == 2
    assert str(manifest.recipe.settings["l2t.source.old"]).startswith("small-resnet ")
    assert str(tmp_path) not in manifest.model_dump_json()


def test_of_many_pairs_the_largest_lambdas_are_named() -> None:
    pairs = tuple(Pair("s", f"m{place}", "n") for place in range(80))
    where = [float((37 * place) % 80) for place in range(80)]
    found = lambda_metrics(pairs, where, 60)
    assert len(found) == 60
    assert found.pop("lambda/left_out") == 21
    assert sorted(found.values()) == list(range(21, 80))
    assert found["lambda/s/m1->n"] == 37
    assert len(lambda_metrics(pairs, where, 80)) == 80


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimiser": "adamw"}, "steps of SGD"),
        ({"l2t": {}}, "needs .*sources"),
        ({"l2t": {"sources": [{"name": "a", "path": "x"}]}}, "'architecture' goes with kind"),
        (
            {"l2t": {"sources": [{"name": "a", "kind": "export", "path": "x", "model": "y"}]}},
            "'model' goes with kind 'torchvision'",
        ),
        (
            {"l2t": {"sources": [{"name": "a", "kind": "export", "path": "x"}] * 2}},
            "two sources are named 'a'",
        ),
        ({"l2t": {"pairs": []}}, "at least 1"),
    ],
)
def test_settings_that_do_not_agree(changes: dict[str, Any], said: str) -> None:
    values = CONFIG.model_dump() | changes
    with pytest.raises(ValueError, match=said):
        TrainingConfig.model_validate(values)


def test_settings_of_the_recipe_name_a_run_and_those_of_another_recipe_do_not(
    tmp_path: Path,
) -> None:
    def digest(**changes: object) -> str:
        training = CONFIG.model_copy(update=changes)
        return digits_lab.config(tmp_path, training=training).run_digest(digits_lab.PLAN_DIGEST)

    other = CONFIG.l2t.model_copy(update={"beta": 0.9})
    assert digest() != digest(l2t=other)
    assert digest(recipe="supervised") == digest(recipe="supervised", l2t=other)
