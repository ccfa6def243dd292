"""From the plan's initial weights to a signed teacher net in the spool."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch

from common.errors import SchemaError
from common.model import canonical_json
from common.nets.architectures import build_category_module, build_task_module
from common.weights import safetensors_io
from common.weights.manifest import TeacherManifest
from site_agent.config import SiteConfig, TrainingConfig
from site_agent.lab import Lab
from site_agent.recipes.interface import Recipe, Teacher
from site_agent.recipes.supervised import SupervisedRecipe
from site_agent.spool import SpoolEntry
from site_agent.submission import build

RECIPES: dict[str, Callable[[TrainingConfig, torch.device], Recipe]] = {
    "supervised": SupervisedRecipe,
}
"""By the name that `training.recipe` gives."""


def teach(lab: Lab) -> SpoolEntry:
    """Train the teacher net that plan and settings ask for, unless that was done before.

    Returns
    -------
    The teacher's entry in the spool, shipped or not.

    Raises
    ------
    ConfigurationError
        If the lab has no labels for a task, or the plan no such task.
    DataError
        If the lab's images cannot be used.
    StorageError
        If the disk is full; the last checkpoint stays, and the next start goes on from it.
    Stopped
        If the agent is asked to stop; likewise.
    """
    run = run_digest(lab.config, lab.plan_digest)
    known = lab.spool.made_by(run)
    if known is not None:
        lab.log.info("trained before", manifest=known.digest, run=run)
        return known
    tasks = [task.name for task in lab.tasks]
    recipe = RECIPES[lab.config.training.recipe](lab.config.training, lab.device)
    data = lab.data
    # Checkpoints over other images, or of other settings, are not this run's.
    folder = lab.config.state / "training" / f"{run[:16]}-{data.digest()[:16]}"
    start = initial_teacher(lab)
    lab.log.info("trains", recipe=recipe.name, run=run, tasks=tasks, images=len(data.training))
    progress = lab.progress("training", "trains the teacher net")
    teacher = recipe.train(start, data, folder, progress, lab.stop)
    lab.status.progress("measuring", message="measures the teacher net")
    with lab.spool.staging() as staging:
        manifest = build(
            staging,
            teacher,
            data,
            lab.config,
            lab.plan,
            lab.plan_digest,
            (recipe.name, recipe.settings()),
            lab.device,
            lab.stop,
        )
        entry = lab.commit(staging, manifest, run)
    lab.log.info("trained", manifest=entry.digest, **manifest.metrics)
    lab.log.info(
        f"sharing exactly {lab.config.share_samples} samples",
        samples=lab.config.share_samples,
        statistics=sorted(manifest.statistics.tensors) if manifest.statistics else [],
    )
    return entry


def run_digest(config: SiteConfig, plan_digest: str) -> str:
    """Return what names a teacher before it is trained: the plan and all settings that shape it."""
    parts = {
        "plan": plan_digest,
        "category": config.category,
        "data": config.data.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json", exclude={"checkpoint_epochs"}),
        "statistics": config.statistics.model_dump(mode="json"),
        "share_samples": config.share_samples,
        "tasks": config.tasks,
        **({"new_version": True} if config.new_version else {}),
    }
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def withdraw_others(lab: Lab, entry: SpoolEntry) -> None:
    """Set teachers aside that wait to be shipped but were made under other settings.

    An operator who lowers `share_samples`, say, must not see the old number leave.
    """
    for other in lab.spool.entries():
        if other.manifest.kind == "teacher" and other.run != entry.run:
            lab.spool.withdraw(other, "the plan or the settings have changed since it was trained")


def initial_teacher(lab: Lab) -> Teacher:
    """Fetch the plan's initial weights; every lab starts from them (METHODS 1g).

    Raises
    ------
    SchemaError
        If the plan lacks a task's initial weights, or they do not fit its architecture.
    """
    plan = lab.plan
    category_module = build_category_module(plan.architecture)
    blob = plan.initial_category_module
    safetensors_io.load_module(category_module, lab.fetch(blob, "plan"), blob)
    task_modules = {}
    for task in lab.tasks:
        if task.name not in plan.initial_task_modules:
            raise SchemaError(
                f"the plan has task '{task.name}' but no initial weights for it; tell the "
                "coordinator's operator"
            )
        blob = plan.initial_task_modules[task.name]
        module = build_task_module(plan.architecture, task)
        safetensors_io.load_module(module, lab.fetch(blob, "plan"), blob)
        task_modules[task.name] = module
    return Teacher(category_module, task_modules)


def teacher_error(entry: SpoolEntry) -> float | None:
    """Return a teacher's error in percent on the lab's validation data: the first task's."""
    if not isinstance(entry.manifest, TeacherManifest):
        return None
    return entry.manifest.metrics[f"error/{min(entry.manifest.task_modules)}"]
