"""Recipe `nettailor` on real digits: a net's blocks kept or replaced, and what ships of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from rootstock.common.distillation.problem import logits
from rootstock.common.errors import ConfigurationError, DataError, TransplantError
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    feature_shape,
    initial_modules,
    initialise,
)
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nets.tailored.paths import Path as NetPath
from rootstock.common.nets.tailored.resnet import tailored_spec
from rootstock.common.protocol import Plan
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.admission import admit
from rootstock.common.weights.card import NetCard, card_path
from rootstock.common.weights.manifest import Recipe
from rootstock.coordinator.export.card_text import card_text
from rootstock.site_agent.config import NettailorBackbone, TrainingConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.recipes.nettailor import NettailorRecipe, set_apart
from rootstock.site_agent.recipes.sources import load_backbone
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.state import Stopped
from rootstock.site_agent.teacher.package import build, write_blob
from tests.support import digits_lab

pytestmark = pytest.mark.slow

SPEC = ArchitectureSpec(
    name="small-resnet", split="block2_1", settings={"input_size": 32, "width": 4, "blocks": 1}
)
VALUES: dict[str, Any] = {
    "recipe": "nettailor",
    "batch_size": 16,
    "epochs": 6,
    "learning_rate": 0.01,
    "checkpoint_epochs": 1,
    "nettailor": {
        "backbone": {"kind": "net", "path": "/backbone.safetensors"},
        "student_epochs": 8,
        "tuning_epochs": 4,
        "attention_rate": 20.0,
        "complexity": 1.0,
        "tolerance": 8.0,
    },
}


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(
        VALUES | {"nettailor": VALUES["nettailor"] | changes.pop("nettailor", {})} | changes
    )


def start() -> Teacher:
    return Teacher(*initial_modules(SPEC, [digits_lab.TASK], 0))


@cache
def few() -> LabData:
    """Return data of which an epoch has few batches."""
    data = digits_lab.data(1)
    positive = torch.nonzero(data.training.labels_N).flatten().tolist()[:40]
    negative = torch.nonzero(data.training.labels_N == 0).flatten().tolist()[:40]
    return replace(data, training=data.training.subset(positive + negative))


@cache
def pretrained(folder: Path) -> Path:
    """Return a net that told another digit from the rest, as a file of layers."""
    recipe = SupervisedRecipe(TrainingConfig(epochs=2, learning_rate=0.01), digits_lab.CPU)
    teacher = recipe.train(start(), TrainingRun(digits_lab.data(0), folder))
    path = folder / "backbone.safetensors"
    head = teacher.task_modules[digits_lab.TASK.name]
    safetensors_io.write(path, teacher.category_module.state_dict() | head.state_dict())
    return path


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained(tmp_path_factory.mktemp("backbone"))


def recipe(path: Path, warned: list[str] | None = None, **changes: Any) -> NettailorRecipe:
    where = NettailorBackbone(kind="net", path=path)
    loaded = load_backbone(where, SPEC, digits_lab.CPU)
    said = digits_lab.fail if warned is None else warned.append
    return NettailorRecipe(config(**changes), digits_lab.CPU, loaded, said)


def train(made: NettailorRecipe, folder: Path, data: LabData | None = None) -> Teacher:
    return made.train(start(), TrainingRun(data or few(), folder))


def plan(folder: Path) -> Plan:
    folder.mkdir(exist_ok=True)
    first = start()
    return Plan(
        net="digits",
        architecture=SPEC,
        tasks=(digits_lab.TASK,),
        initial_category_module=write_blob(folder, first.category_module.state_dict()),
        initial_task_modules={
            name: write_blob(folder, g.state_dict()) for name, g in first.task_modules.items()
        },
    )


def assert_same(one: Teacher, other: Teacher) -> None:
    assert (one.numbers, one.extractor) == (other.numbers, other.extractor)
    for name, module in one.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, other.modules()[name].state_dict()[key]), (name, key)


def test_a_tailored_teacher_passes_the_gate_and_shares_the_backbones_tensors(
    tmp_path: Path, backbone: Path
) -> None:
    made = recipe(backbone)
    teacher = train(made, tmp_path / "run")
    (tmp_path / "blobs").mkdir()
    asked = plan(tmp_path / "plan")
    lab = digits_lab.lab(digits_lab.config(tmp_path), asked)
    recipe_entry = Recipe(name=made.name, settings=made.settings())
    manifest = build(lab, teacher, few(), recipe_entry, tmp_path / "blobs")
    admit(manifest, asked, lambda digest: tmp_path / "blobs" / digest)

    told = manifest.metrics
    assert told["nettailor/tolerance_met"] == 1
    assert told["nettailor/points_above"] <= 8
    assert 0 < told["nettailor/blocks_removed"] <= 2
    assert told["nettailor/flops_removed"] > 10
    assert told["error/classification"] < 25  # half are of the category
    extractor = manifest.architecture.extractor
    assert extractor is not None
    assert (extractor.name, extractor.split) == ("tailored-resnet", "tailored")
    assert feature_shape(manifest.architecture) == feature_shape(SPEC)
    shipped = tmp_path / "blobs" / manifest.category_module.digest
    f = build_category_module(manifest.architecture).eval()
    safetensors_io.load_module(f, shipped, manifest.category_module)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(f(images), teacher.category_module(images))

    # Of the kept paths each has its α.
    tensors = safetensors_io.read(shipped, manifest.category_module)
    kept = {name.split(".")[2] for name in tensors if name.startswith(("tailored.b", "tailored.p"))}
    assert {name.partition("/")[2] for name in told if name.startswith("alpha/")} == kept
    assert shared_with(backbone, tensors) == {n for n in tensors if not own(n)}

    said = manifest.recipe.settings
    assert str(said["nettailor.backbone"]).startswith("net ")
    assert "frozen" in str(said["nettailor.shared_statistics"])
    assert "this task" in str(said["nettailor.own_statistics"])
    assert str(tmp_path) not in manifest.model_dump_json()


def shared_with(backbone: Path, tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the tensors that are the backbone's to the last bit."""
    weights = safetensors.torch.load_file(backbone)
    theirs = {value.numpy().tobytes() for value in weights.values()}
    return {name for name, value in tensors.items() if value.numpy().tobytes() in theirs}


def own(name: str) -> bool:
    """Say whether a tensor is of the lab's tasks alone: proxies and α."""
    return "proxies" in name or "alpha" in name


UNTAUGHT = {
    "student_epochs": 1, "student_learning_rate": 1e-9, "tuning_epochs": 1,
    "tuning_learning_rate": 1e-9, "tolerance": 0.0,
}  # fmt: skip
"""No net that is tailored so is as good as one that was fine-tuned for many epochs."""


@pytest.mark.parametrize("phase", ["fine-tunes", "learns with", "tunes a net", "again"])
def test_an_interruption_leaves_no_trace(tmp_path: Path, backbone: Path, phase: str) -> None:
    short = {"student_epochs": 2, "tuning_epochs": 2, "tolerance": 100.0}
    if phase == "again":  # a net that is above the tolerance at first
        short = UNTAUGHT | {"tuning_epochs": 2, "tuning_learning_rate": 0.01}
    made = recipe(backbone, [], epochs=15 if phase == "again" else 2, nettailor=short)
    whole = train(made, tmp_path / "whole")
    stop, after = threading.Event(), []

    def midway(step: int, steps: int, message: str) -> None:
        if stop.is_set():
            after.append(message)
        if phase in message and step == steps // 2 + 1:
            stop.set()

    with pytest.raises(Stopped):
        made.train(start(), TrainingRun(few(), tmp_path / "cut", midway, stop))
    assert after == []  # not a step more
    assert_same(train(made, tmp_path / "cut"), whole)
    repeated: list[str] = []
    made.train(start(), TrainingRun(few(), tmp_path / "cut", lambda *t: repeated.append(t[2])))
    assert repeated == []  # what is done is not done again


def test_a_net_that_is_tuned_again_goes_on_from_where_it_was(
    tmp_path: Path, backbone: Path
) -> None:
    more = UNTAUGHT | {"tuning_epochs": 2, "tuning_learning_rate": 0.01}
    train(recipe(backbone, [], epochs=15, nettailor=more), tmp_path)
    first, second = (
        safetensors.torch.load_file(path)
        for path in sorted(tmp_path.rglob("tuned-0-[01]/checkpoint.safetensors"))
    )
    assert first.keys() == second.keys()
    learned = {name for name in first if name.startswith("module/")}
    assert {name.split("/")[2].split(".")[0] for name in learned} == {"attention", "head"}
    weights = {name for name in learned if name.endswith("weight")}
    assert 0 < max(float((first[n] - second[n]).abs().max()) for n in weights) < 0.1


def test_a_net_that_diverges_as_it_is_tuned_is_given_up(tmp_path: Path, backbone: Path) -> None:
    warned: list[str] = []
    wild = {"tuning_epochs": 8, "tuning_learning_rate": 10, "mimicry": 1000, "tolerance": 100}
    teacher = train(recipe(backbone, warned, epochs=2, nettailor=UNTAUGHT | wild), tmp_path)
    # Any other net would do.
    assert teacher.extractor is not None
    assert teacher.extractor.settings["paths"] == "1:01 2:012"
    assert (teacher.numbers["nettailor/tolerance_met"], warned) == (1, [])


def test_several_tasks_are_tailored_to_at_once(tmp_path: Path, backbone: Path) -> None:
    tasks = (digits_lab.TASK, digits_lab.TASK.model_copy(update={"name": "a.second"}))
    lean = {"student_epochs": 4, "tuning_epochs": 8, "tolerance": 100.0}
    teacher = recipe(backbone, nettailor=lean).train(
        Teacher(*initial_modules(SPEC, tasks, 0)), TrainingRun(few(), tmp_path)
    )
    assert set(teacher.task_modules) == {"classification", "a.second"}
    x_NCHW = normalise(few().training.images_NCHW)
    for g in teacher.task_modules.values():
        y_N = logits(g(teacher.category_module(x_NCHW)))
        assert y_N[:40].mean() > y_N[40:].mean() + 0.5  # each has learned


def test_a_tolerance_that_no_net_meets_ships_the_whole_one_and_says_so(
    tmp_path: Path, backbone: Path
) -> None:
    warned: list[str] = []
    made = recipe(backbone, warned, epochs=15, nettailor=UNTAUGHT)
    teacher = train(made, tmp_path)
    (said,) = warned
    assert "within 0 points of the fine-tuned original's error on 16 images held apart" in said
    assert "raise training.nettailor.tolerance" in said
    assert teacher.numbers["nettailor/tolerance_met"] == 0
    assert teacher.numbers["nettailor/points_above"] > 0
    assert teacher.numbers["nettailor/blocks_removed"] == 0
    assert teacher.numbers["nettailor/params_removed"] < 0
    assert teacher.extractor is not None
    assert teacher.extractor.settings["paths"] == "1:01 2:012"
    tensors = teacher.category_module.state_dict()
    assert {name.split(".")[2] for name in tensors if "blocks." in name} == {"block1_1", "block2_1"}
    assert shared_with(backbone, tensors) == {name for name in tensors if not own(name)}


def test_images_held_apart_are_balanced_and_of_training() -> None:
    data = few()
    rest, held = set_apart(data.training, 0.2, seed=3)
    assert held.counts() == (8, 8)
    assert rest.counts() == (32, 32)
    assert set(rest.keys) | set(held.keys) == set(data.training.keys)
    assert not set(held.keys) & set(data.validation.keys)
    assert set_apart(data.training, 0.2, seed=4)[1].keys != held.keys
    two = data.training.subset([0, 1, 2, 40, 41, 42])
    with pytest.raises(DataError, match=r"0\.2 of 3 training images of the category and 3"):
        set_apart(two, 0.2, seed=3)


def test_fewer_images_than_a_batch_are_too_few(tmp_path: Path, backbone: Path) -> None:
    data = replace(few(), training=few().training.subset([*range(6), *range(40, 46)]))
    with pytest.raises(DataError, match="10 training images do not make one batch of 16"):
        train(recipe(backbone), tmp_path, data)


def test_training_that_diverges_says_so(tmp_path: Path, backbone: Path) -> None:
    wild = {"student_learning_rate": 10.0, "mimicry": 1000.0}
    with pytest.raises(TransplantError, match=r"and diverged .*; lower student_learning_rate"):
        train(recipe(backbone, epochs=1, nettailor=wild), tmp_path)


def refused(architecture: ArchitectureSpec, **values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_backbone(NettailorBackbone(**values), architecture, digits_lab.CPU)
    return str(caught.value)


def test_backbones_that_cannot_be_used_are_named(tmp_path: Path, backbone: Path) -> None:
    said = refused(digits_lab.SPEC, path=backbone, kind="net")
    assert "'small-vgg', split 'pool1', has no residual blocks to keep or replace" in said
    assert "set recipe = 'supervised'" in said
    gone = tmp_path / "gone.safetensors"
    assert f"net {gone} cannot be loaded: " in refused(SPEC, path=gone, kind="net")
    pickled = tmp_path / "pickled.safetensors"
    torch.save(nn.Linear(2, 2).state_dict(), pickled)
    assert "cannot be loaded" in refused(SPEC, path=pickled, kind="net")
    assert "card" in refused(SPEC, path=backbone, kind="export")
    wide = SPEC.model_copy(update={"settings": {"input_size": 32, "width": 8, "blocks": 1}})
    assert "size mismatch" in refused(wide, path=backbone, kind="net")
    deep = SPEC.model_copy(update={"settings": {"width": 4, "blocks": 2}})
    assert "it has no tensor 'block1_2.conv1.weight'" in refused(deep, path=backbone, kind="net")
    assert "only resnet18 is one of ours" in refused(SPEC, path=backbone, kind="torchvision")


def exported(folder: Path, architecture: ArchitectureSpec) -> tuple[Path, nn.Sequential, NetCard]:
    """Write what `rootstock net export` writes of a founder's net."""
    f = initialise(build_category_module(architecture), 1).eval()
    g = initialise(build_task_module(architecture.above(), digits_lab.TASK), 2).eval()
    path = folder / "net.safetensors"
    net = ComposedNet(f, None, g, Calibration())
    card = NetCard(
        category="zero",
        task=digits_lab.TASK,
        category_architecture=architecture,
        task_architecture=architecture.above(),
        input_shape=(3, 32, 32),
        adapter=None,
        calibration=Calibration(),
        error=None,
        digests={},
        blob=safetensors_io.write(path, net.state_dict()),
        how_to_load="",
    )
    card_path(path).write_text(card.model_dump_json())
    return path, f, card


def test_an_exported_net_is_a_backbone_unless_it_was_tailored(tmp_path: Path) -> None:
    path, f, card = exported(tmp_path, SPEC)
    loaded = load_backbone(NettailorBackbone(path=path), SPEC, digits_lab.CPU)
    assert loaded.description.startswith("export ")
    for name, value in f.state_dict().items():
        assert torch.equal(loaded.extractor.state_dict()[name], value)
    assert "| category module | small-resnet, up to layer `block2_1` |" in card_text(card, "x")

    tailored = SPEC.model_copy(
        update={"extractor": tailored_spec(SPEC, [NetPath(1, 1), NetPath(2, 0)])}
    )
    path, _, card = exported(tmp_path, tailored)
    assert "category module is a 'tailored-resnet', the plan's a 'small-resnet'" in refused(
        SPEC, path=path
    )
    assert "| category module | tailored-resnet, up to layer `tailored`; its features" in card_text(
        card, "x"
    )
    assert "| task module | small-resnet, above layer `block2_1` |" in card_text(card, "x")


def test_torchvisions_resnet18_is_a_backbone_where_the_plan_s_net_is_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.get_model("resnet18", weights=None, num_classes=7).eval()
    path = tmp_path / "resnet18.safetensors"
    safetensors_io.write(path, net.state_dict())
    spec = ArchitectureSpec(name="resnet18", split="block2_2", settings={"input_size": 32})
    loaded = load_backbone(NettailorBackbone(kind="torchvision", path=path), spec, digits_lab.CPU)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        expected = net.layer2(net.layer1(features))
        torch.testing.assert_close(loaded.extractor(images), expected)


def test_settings_that_do_not_agree() -> None:
    with pytest.raises(ValueError, match=r"needs \[training\.nettailor\.backbone"):
        TrainingConfig(recipe="nettailor")
    with pytest.raises(ValueError, match=r"remove training\.extractor"):
        config(extractor=SPEC)


def test_settings_of_the_recipe_name_a_run_and_those_of_another_recipe_do_not(
    tmp_path: Path,
) -> None:
    def digest(**changes: Any) -> str:
        training = config(**changes)
        return digits_lab.config(tmp_path, training=training).run_digest(digits_lab.PLAN_DIGEST)

    other = {"tolerance": 1.0}
    assert digest() != digest(nettailor=other)
    assert digest(recipe="supervised") == digest(recipe="supervised", nettailor=other)
