"""The configuration chooses the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import build_category_module, build_head
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.protocol import Heads
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.lab import Lab
from rootstock.site_agent.teacher.package import write_blob
from rootstock.site_agent.teacher.train import build_recipe, initial_teacher, remove_checkpoints
from rootstock.site_agent.wire.client import Published
from tests.support import digits_lab

RESNET = ArchitectureSpec(
    name="small-resnet", split="block2_1", settings={"input_size": 32, "width": 4, "blocks": 1}
)


def lab(state: Path, **training: object) -> Lab:
    state.mkdir(exist_ok=True)
    config = digits_lab.config(state, training=TrainingConfig.model_validate(training))
    return digits_lab.lab(config, digits_lab.plan(state / "plan"))


def weights(folder: Path) -> Path:
    path = folder / "net.safetensors"
    f, head = build_category_module(RESNET), build_head(RESNET, 3)
    safetensors_io.write(path, f.state_dict() | head.state_dict())
    return path


def test_supervised_is_the_default(tmp_path: Path) -> None:
    assert build_recipe(lab(tmp_path)).name == "supervised"


def test_compatible_loads_the_published_heads(tmp_path: Path) -> None:
    own = lab(tmp_path, recipe="compatible")
    head = digits_lab.start().task_modules[digits_lab.TASK.name]
    blob = write_blob(tmp_path / "plan", head.state_dict())
    heads = Heads(number=1, origin="test", task_modules={digits_lab.TASK.name: blob})
    published = own.published._replace(heads=heads)
    recipe = build_recipe(Lab(own.config, published, own.device, own.download, own.warn))
    assert recipe.name == "compatible"
    # Heads are for that recipe alone.
    other = lab(tmp_path / "other")
    assert Lab(other.config, published, other.device, other.download, other.warn).heads is None


def test_l2t_loads_its_sources(tmp_path: Path) -> None:
    source = {"name": "old", "path": weights(tmp_path), "architecture": RESNET}
    recipe = build_recipe(
        lab(tmp_path, recipe="l2t", optimiser="sgd", l2t={"sources": [source], "beta": 0.7})
    )
    assert recipe.name == "l2t"
    settings = recipe.settings()
    assert settings["l2t.beta"] == 0.7
    assert str(settings["l2t.source.old"]).startswith("small-resnet ")


def test_nettailor_loads_its_backbone(tmp_path: Path) -> None:
    file = {"kind": "net", "path": weights(tmp_path)}
    own = lab(tmp_path, recipe="nettailor", nettailor={"backbone": file})
    plan = own.plan.model_copy(update={"architecture": RESNET})
    recipe = build_recipe(digits_lab.lab(own.config, plan))
    assert recipe.name == "nettailor"
    assert str(recipe.settings()["nettailor.backbone"]).startswith("net ")


def test_only_checkpoints_are_removed(tmp_path: Path) -> None:
    training = tmp_path / "training"
    for name in ("0" * 16 + "-" + "a" * 16, "-".join(["0" * 16] * 3), "cat", "black-cat"):
        (training / name).mkdir(parents=True)
        (training / name / "file").touch()
    elsewhere = training / ("1" * 16 + "-" + "1" * 16)
    elsewhere.symlink_to(training / "cat")
    remove_checkpoints(tmp_path)
    assert {path.name for path in training.iterdir()} == {"cat", "black-cat", elsewhere.name}
    assert (training / "cat" / "file").exists()
    remove_checkpoints(tmp_path / "cat")  # which has none


def test_what_does_not_fit_the_plan_is_not_fetched(tmp_path: Path) -> None:
    own = lab(tmp_path)
    assert initial_teacher(own).task_modules.keys() == {digits_lab.TASK.name}
    blob = own.plan.initial_category_module
    for wrong in (
        blob.model_copy(update={"size": 300_000_000}),
        own.plan.initial_task_modules[digits_lab.TASK.name],
    ):
        plan = own.plan.model_copy(update={"initial_category_module": wrong})
        fetched: list[str] = []

        def download(blob: BlobEntry, _: str, fetched: list[str] = fetched) -> Path:
            fetched.append(blob.digest)
            return tmp_path

        other = Lab(own.config, Published(plan, "a" * 64, None), own.device, download, own.warn)
        with pytest.raises(SchemaError, match="the coordinator's module: "):
            initial_teacher(other)
        assert fetched == []
