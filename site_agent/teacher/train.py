"""From the plan's initial weights to a signed teacher net in the spool."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from rootstock.common.documents import canonical_json
from rootstock.common.errors import ConfigurationError, SchemaError
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    initialise,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.protocol import Plan
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry, TeacherManifest
from rootstock.site_agent.config import RECIPE_TABLES, SiteConfig
from rootstock.site_agent.lab import Lab
from rootstock.site_agent.recipes.compatible import CompatibleRecipe, load_heads
from rootstock.site_agent.recipes.interface import Recipe, Teacher
from rootstock.site_agent.recipes.l2t import L2tRecipe
from rootstock.site_agent.recipes.l2t_sources import load_sources
from rootstock.site_agent.recipes.nettailor import NettailorRecipe
from rootstock.site_agent.recipes.nettailor_backbone import load_backbone
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.teacher.package import build
from rootstock.site_agent.wire.client import Published


def recipe_of(lab: Lab) -> Recipe:
    """Return the recipe that `training.recipe` names.

    Raises
    ------
    ConfigurationError, SchemaError
        If the published heads do not serve: see `site_agent.recipes.compatible.load_heads`. If a
        source cannot be loaded: see `site_agent.recipes.l2t_sources.load_sources`. If a backbone
        cannot: see `rootstock.site_agent.recipes.nettailor_backbone.load_backbone`.
    """
    config = lab.config.training
    if config.recipe == "l2t":
        shape = input_shape(lab.plan.architecture)
        sources = load_sources(config.l2t.sources, config.l2t.pairs, shape, lab.device)
        return L2tRecipe(config, lab.device, sources, shape)
    if config.recipe == "nettailor":
        assert config.nettailor.backbone is not None  # noqa: S101  # the configuration is checked
        backbone = load_backbone(config.nettailor.backbone, lab.plan.architecture, lab.device)
        return NettailorRecipe(
            config,
            lab.device,
            backbone,
            lambda text: lab.log.warning("tailoring", reason=text),
        )
    if lab.heads is None:
        return SupervisedRecipe(config, lab.device)
    heads = load_heads(
        lab.heads,
        lab.plan,
        [task.name for task in lab.tasks],
        config.compatible,
        lambda blob: lab.fetch(blob, "plan"),
    )
    return CompatibleRecipe(config, lab.device, heads)


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
    heads = None if lab.heads is None else lab.heads.content_digest()
    known = lab.spool.shipped_by(run) or lab.spool.made_by(run)
    if known is not None and (known.acknowledged or heads == heads_under(known)):
        lab.log.info("trained before", manifest=known.digest, run=run)
        return known
    tasks = [task.name for task in lab.tasks]
    recipe = recipe_of(lab)
    data = lab.data
    # Checkpoints over other images, of other settings or below other heads, are not this run's.
    parts = [run, data.digest(), *([] if heads is None else [heads])]
    folder = lab.config.state / "training" / "-".join(part[:16] for part in parts)
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
            heads,
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
    """Return what names a teacher before it is trained: the plan and all settings that shape it.

    Auxiliary heads are left out: a teacher that was shipped stays when they are replaced.
    """
    others = (table for table in RECIPE_TABLES if table != config.training.recipe)
    left_out: dict[str, Any] = {"checkpoint_epochs": True, "compatible": {"wait_seconds"}}
    left_out |= dict.fromkeys(others, True)
    training = config.training.model_dump(mode="json", exclude=left_out)
    parts = {
        "plan": plan_digest,
        "category": config.category,
        "data": config.data.model_dump(mode="json"),
        "training": training,
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
        if other.manifest.kind == "teacher" and other.digest != entry.digest:
            lab.spool.withdraw(
                other, "the plan, its heads or the settings have changed since it was trained"
            )


def waits_for_heads(config: SiteConfig, published: Published, spool: Spool) -> bool:
    """Say whether a teacher is to be trained below auxiliary heads, and there are none yet."""
    return (
        config.training.recipe == "compatible"
        and published.heads is None
        and spool.shipped_by(run_digest(config, published.digest)) is None
    )


def heads_under(entry: SpoolEntry) -> str | None:
    """Return the digest of the auxiliary heads that a teacher was trained below, or None."""
    return entry.manifest.heads if isinstance(entry.manifest, TeacherManifest) else None


def initial_teacher(lab: Lab) -> Teacher:
    """Fetch the plan's initial weights; every lab starts from them (METHODS 1g).

    An extractor of another architecture has others: see `initial_category_module`.

    Raises
    ------
    SchemaError
        If the plan lacks a task's initial weights, or they do not fit its architecture.
    ConfigurationError
        If the lab's extractor does not fit the plan's architecture.
    """
    plan, extractor = lab.plan, extractor_of(lab.config, lab.plan)
    spec = plan.architecture.model_copy(update={"extractor": extractor})
    category_module = initial_category_module(
        spec, plan, lab.plan_digest, lambda blob: lab.fetch(blob, "plan")
    )
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
    return Teacher(category_module, task_modules, extractor=extractor)


def extractor_of(config: SiteConfig, plan: Plan) -> ArchitectureSpec | None:
    """Return what f is, if it is not of the plan's architecture.

    Raises
    ------
    ConfigurationError
        If `training.extractor` does not fit below the plan's task modules; says what would.
    """
    extractor = config.training.extractor
    if extractor is None or extractor == plan.architecture:
        return None
    try:
        input_shape(plan.architecture.model_copy(update={"extractor": extractor}))
    except SchemaError as error:
        raise ConfigurationError(f"training.extractor: {error}") from error
    return extractor


def initial_category_module(
    spec: ArchitectureSpec, plan: Plan, plan_digest: str, fetch: Callable[[BlobEntry], Path]
) -> nn.Sequential:
    """Return the f that a lab's training starts from.

    Parameters
    ----------
    spec
        The plan's architecture. With an extractor, f's weights are drawn by the plan's digest:
        alike at all labs that chose the same, as the plan's own are.
    plan, plan_digest
        Under which it is trained.
    fetch
        Returns the file of a blob, verified.

    Raises
    ------
    SchemaError
        If the plan's initial weights do not fit its architecture.
    """
    category_module = build_category_module(spec)
    if spec.extractor is not None:
        return initialise(category_module, int(plan_digest[:8], 16))
    blob = plan.initial_category_module
    safetensors_io.load_module(category_module, fetch(blob), blob)
    return category_module


def teacher_error(entry: SpoolEntry) -> float | None:
    """Return a teacher's error in percent on the lab's validation data: the first task's."""
    if not isinstance(entry.manifest, TeacherManifest):
        return None
    return entry.manifest.metrics[f"error/{min(entry.manifest.task_modules)}"]
