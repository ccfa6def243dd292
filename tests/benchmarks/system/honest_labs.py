"""Labs of an example federation: their data, the nets that they train, and what they ship."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import BlobEntry, TeacherManifest
from rootstock.common.weights.manifest import Recipe as RecipeEntry
from rootstock.coordinator.plan.publish import publish_plan
from rootstock.deploy.federation import config as federations
from rootstock.site_agent.lab import Lab
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.teacher.package import build
from rootstock.site_agent.teacher.train import build_recipe, initial_teacher
from rootstock.site_agent.wire.client import Published


@dataclass(frozen=True)
class HonestLab:
    """A lab, its trained net, and its manifest, whose blobs lie in `blobs`."""

    lab: Lab
    teacher: Teacher
    manifest: TeacherManifest
    blobs: Path


def plan_of(federation: federations.Federation) -> tuple[Plan, LocalStore]:
    """Publish a federation's plan in its coordinator's state folder."""
    config = federation.coordinator
    config.state.mkdir(parents=True, exist_ok=True)
    store = LocalStore(config.state / "artifacts")
    return publish_plan(config, store, config.state / "plan.json"), store


def example(path: Path, folder: Path) -> federations.Federation:
    """Read an example federation, whose state is to lie in a folder."""
    return federations.resolve(
        federations.read(path),
        source=str(path),
        state=folder,
        coordinator_port=1,
        mlflow_uri="http://127.0.0.1:5000",
    )


def trained(federation: federations.Federation, site: str) -> HonestLab:
    """Train a lab's net as its agent does, and write what it ships."""
    plan, store = plan_of(federation)
    (config,) = federation.only([site]).sites
    blobs = config.state / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)

    def fetch(blob: BlobEntry, _: str) -> Path:
        return store.local_path(blob.digest)

    published = Published(plan, plan.content_digest(), None)
    lab = Lab(config, published, torch.device("cpu"), fetch, lambda _: None)
    recipe = build_recipe(lab)
    teacher = recipe.train(initial_teacher(lab), TrainingRun(lab.data, config.state / "training"))
    entry = RecipeEntry(name=recipe.name, settings=recipe.settings())
    return HonestLab(lab, teacher, build(lab, teacher, lab.data, entry, blobs), blobs)
