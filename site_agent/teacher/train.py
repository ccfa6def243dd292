"""From the plan's initial weights to a signed teacher net in the spool."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

from torch import nn

from rootstock.common.errors import ConfigurationError, SchemaError
from rootstock.common.failpoints import failpoint
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    initialise,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec, Preprocessing
from rootstock.common.protocol import Plan
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import Recipe as RecipeEntry
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.site_agent.config import CompatibleConfig, L2tConfig, NettailorConfig, SiteConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.record import record_of, write_record
from rootstock.site_agent.lab import OWN_FILES, AgentLab, Lab
from rootstock.site_agent.recipes.compatible import CompatibleRecipe, load_heads
from rootstock.site_agent.recipes.interface import Recipe, Teacher, TrainingRun
from rootstock.site_agent.recipes.l2t import L2tRecipe
from rootstock.site_agent.recipes.nettailor import NettailorRecipe, set_apart
from rootstock.site_agent.recipes.sources import load_backbone, load_sources
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.teacher.package import build, require_shareable
from rootstock.site_agent.wire.client import Published

_TRAINING = "training"
"""Below the state folder: a folder of checkpoints for each run."""

_RUN_FOLDER = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{16}){1,2}")
"""What `teach` calls a run's folder."""


def build_recipe(lab: Lab) -> Recipe:
    """Build the recipe that the lab's configuration chooses, with all that it loads."""
    training, plan = lab.config.training, lab.plan
    match training.chosen:
        case L2tConfig(sources=sources, pairs=pairs):
            shape = input_shape(plan.architecture)
            loaded = load_sources(sources, pairs, shape, lab.device)
            return L2tRecipe(training, lab.device, loaded, shape)
        case NettailorConfig(backbone=file) if file is not None:
            backbone = load_backbone(file, plan.architecture, lab.device)
            return NettailorRecipe(training, lab.device, backbone, lab.warn)
        case CompatibleConfig() as compatible if lab.heads is not None:
            tasks = [task.name for task in lab.tasks]
            heads = load_heads(lab.heads, plan, tasks, compatible, lab.fetch)
            return CompatibleRecipe(training, lab.device, heads)
    return SupervisedRecipe(training, lab.device)


def teach(lab: AgentLab) -> SpoolEntry:
    """Train the teacher net that plan and settings ask for, unless that was done before.

    Whatever interrupts it, the last checkpoint stays, and the next start resumes from it. Returns
    the teacher's entry in the spool, shipped or not.
    """
    run = lab.config.run_digest(lab.published.digest)
    heads = None if lab.heads is None else lab.heads.content_digest()
    for known in lab.spool.made_by(run):
        if known.acknowledged or heads == heads_under(known):
            lab.log.info("training.reused", manifest=known.digest, run=run)
            return known
    tasks = [task.name for task in lab.tasks]
    recipe = build_recipe(lab)
    lab.record_path.unlink(missing_ok=True)  # of a teacher that is trained anew
    data = lab.data
    require_trainable(data, lab.config, lab.plan)
    # Checkpoints over other images, of other settings or below other heads, are not this run's.
    parts = [run, data.digest(), *([] if heads is None else [heads])]
    folder = lab.config.state / _TRAINING / "-".join(part[:16] for part in parts)
    if not folder.exists() and any(folder.parent.glob(f"{run[:16]}-*")):
        lab.log.warning(
            "training.begun_anew",
            run=run,
            reason="the images, or the heads, have changed since an interrupted training",
        )
    start = initial_teacher(lab)
    lab.log.info(
        "training.begun", recipe=recipe.name, run=run, tasks=tasks, images=len(data.training)
    )
    progress = lab.progress("training", "trains the teacher net")
    teacher = recipe.train(start, TrainingRun(data, folder, progress, lab.stop))
    failpoint("teacher.trained")
    lab.status.progress("measuring", message="measures the teacher net")
    with lab.spool.staging() as staging:
        entry_of = RecipeEntry(name=recipe.name, settings=recipe.settings())
        manifest = build(lab, teacher, data, entry_of, staging, lab.stop)
        if lab.config.data.kind in OWN_FILES:
            write_record(lab.record_path, record_of(data, lab.loaded.chosen))
        entry = lab.commit(staging, manifest, run)
    lab.log.info("training.done", manifest=entry.digest, **manifest.metrics)
    lab.log.info(
        "samples.shared",
        samples=lab.config.share_samples,
        statistics=sorted(manifest.statistics.tensors) if manifest.statistics else [],
    )
    return entry


def remove_checkpoints(state: Path) -> None:
    """Delete the checkpoints of all runs, and nothing else.

    An operator may have named a folder as the state that has images in a `training` of its own.
    """
    folder = state / _TRAINING
    for run in folder.glob("*-*"):
        if _RUN_FOLDER.fullmatch(run.name) and not run.is_symlink():
            shutil.rmtree(run, ignore_errors=True)
    with suppress(OSError):  # of what has something else in it, or is a link
        folder.rmdir()


def require_trainable(data: LabData, config: SiteConfig, plan: Plan | None) -> None:
    """Refuse what the images do not suffice for, before hours are spent on training.

    Where the plan is not known, its limits are not checked.
    """
    training = config.training
    require_shareable(data.training, config, plan)
    if isinstance(training.chosen, NettailorConfig):
        set_apart(data.training, training.chosen.held_share, training.seed)


def withdraw_others(lab: AgentLab, entry: SpoolEntry) -> None:
    """Quarantine teachers that wait to be shipped but were made under other settings.

    An operator who lowers `share_samples`, say, must not see the old number leave.
    """
    for other in lab.spool.entries():
        if other.manifest.kind == "teacher" and other.digest != entry.digest:
            lab.spool.withdraw(
                other, "the plan, its heads or the settings have changed since it was trained"
            )


def waits_for_heads(config: SiteConfig, published: Published, spool: Spool) -> bool:
    """Say whether a teacher is to be trained below auxiliary heads, and there are none yet."""
    if config.training.recipe != "compatible" or published.heads is not None:
        return False
    known = spool.made_by(config.run_digest(published.digest))
    return not any(entry.acknowledged for entry in known)


def heads_under(entry: SpoolEntry) -> str | None:
    """Return the digest of the auxiliary heads that a teacher was trained below, or None."""
    return entry.manifest.heads if isinstance(entry.manifest, TeacherManifest) else None


def initial_teacher(lab: Lab) -> Teacher:
    """Fetch the plan's initial weights; every lab starts from them (METHODS 1g)."""
    plan, extractor = lab.plan, extractor_of(lab.config, lab.plan)
    spec = plan.architecture.model_copy(update={"extractor": extractor})
    category_module = initial_category_module(lab, spec)
    task_modules = {}
    for task in lab.tasks:
        if task.name not in plan.initial_task_modules:
            raise SchemaError(
                f"the plan has task '{task.name}' but no initial weights for it; tell the "
                "coordinator's operator"
            )
        blob = plan.initial_task_modules[task.name]
        module = build_task_module(plan.architecture, task)
        safetensors_io.load_module(module, lab.fetch(blob, module), blob)
        task_modules[task.name] = module
    return Teacher(category_module, task_modules, extractor=extractor)


def extractor_of(config: SiteConfig, plan: Plan) -> ArchitectureSpec | None:
    """Return what f is, if it is not of the plan's architecture, and make sure that it fits."""
    extractor = config.training.extractor
    own = plan.architecture
    # An extractor says nothing of images, which are read as the plan says.
    if extractor in (None, own, own.model_copy(update={"preprocessing": Preprocessing()})):
        return None
    try:
        input_shape(plan.architecture.model_copy(update={"extractor": extractor}))
    except SchemaError as error:
        raise ConfigurationError(f"training.extractor: {error}") from error
    return extractor


def initial_category_module(lab: Lab, spec: ArchitectureSpec) -> nn.Sequential:
    """Return the f that a lab's training starts from.

    `spec` is the plan's architecture. With an extractor, f's weights are drawn by the plan's
    digest: alike at all labs that chose the same, as the plan's own are.
    """
    category_module = build_category_module(spec)
    if spec.extractor is not None:
        return initialise(category_module, int(lab.published.digest[:8], 16))
    blob = lab.plan.initial_category_module
    safetensors_io.load_module(category_module, lab.fetch(blob, category_module), blob)
    return category_module


def teacher_error(entry: SpoolEntry) -> float | None:
    """Return a teacher's error in percent on the lab's validation data: the first task's."""
    if not isinstance(entry.manifest, TeacherManifest):
        return None
    return entry.manifest.metrics[f"error/{min(entry.manifest.task_modules)}"]
