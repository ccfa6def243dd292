"""Turns a trained teacher net into what is shipped: blobs and a manifest that names them all.

N images, C channels, H/W height and width.
"""

from __future__ import annotations

import platform
import threading
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from rootstock import __version__
from rootstock.common.errors import ConfigurationError, DataError
from rootstock.common.heap import tensors_kept
from rootstock.common.images import normalise
from rootstock.common.protocol import Plan
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry, Recipe, SharedSamples, TeacherManifest
from rootstock.common.weights.salt import salted
from rootstock.site_agent import scoring
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.consent.rounding import rounded
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.lab import Lab
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.teacher.statistics import statistics


def write_blob(folder: Path, tensors: dict[str, Tensor]) -> BlobEntry:
    """Write tensors into a folder, in a file named by its digest."""
    aside = folder / "blob.aside"
    entry = safetensors_io.write(aside, {k: v.detach().cpu() for k, v in tensors.items()})
    aside.replace(folder / entry.digest)
    return entry


@tensors_kept()
def build(
    lab: Lab,
    teacher: Teacher,
    data: LabData,
    recipe: Recipe,
    folder: Path,
    stop: threading.Event | None = None,
) -> TeacherManifest:
    """Measure a teacher net and write everything that its manifest names into a folder, by digest.

    Errors are measured on validation images, statistics on training images, from which shared
    samples come, if any.
    """
    config = lab.config
    shared = shared_samples(data.training, config, lab.plan)
    heads = teacher.task_modules
    logits = scoring.logits(teacher.category_module, heads, data.validation, stop)
    numbers = {
        "samples/training": float(len(data.training)),
        "samples/validation": float(len(data.validation)),
    }
    for task, y_N in logits.items():
        labels_N = data.validation.labels_for(y_N)
        numbers[f"error/{task}"] = rounded(scoring.error_percent(y_N, labels_N))
        mean_iou = scoring.mean_iou_percent(y_N, labels_N)
        if mean_iou is not None:
            numbers[f"mean_iou/{task}"] = rounded(mean_iou)
    named = statistics(teacher, data.training, config.statistics, stop)
    return TeacherManifest(
        site=config.site,
        category=config.category,
        architecture=lab.plan.architecture.model_copy(update={"extractor": teacher.extractor}),
        category_module=write_blob(folder, teacher.category_module.state_dict()),
        task_modules={task: write_blob(folder, heads[task].state_dict()) for task in sorted(heads)},
        metrics=numbers | {name: rounded(each) for name, each in teacher.numbers.items()},
        recipe=recipe,
        software=software(),
        plan=lab.published.digest,
        heads=None if lab.heads is None else lab.heads.content_digest(),
        new_version=config.new_version,
        statistics=write_blob(folder, {n: salted(v_C) for n, v_C in named.items()})
        if named
        else None,
        measured_task=teacher.measured_task if named else None,
        shared_samples=None
        if shared is None
        else SharedSamples(count=len(shared["labels"]), blob=write_blob(folder, shared)),
    )


def shared_samples(training: ImageSet, config: SiteConfig, plan: Plan) -> dict[str, Tensor] | None:
    """Return exactly `share_samples` training images, or None for 0.

    `images` are (N,C,H,W) float32, normalised, and `labels` (N) float32, half of them (rounded up)
    of the category as far as both sides have enough. If a task labels pixels, `masks` are (N,H,W)
    uint8 of the same images.
    """
    count = config.share_samples
    if count == 0:
        return None
    require_shareable(training, config, plan)
    positive, negative = (
        torch.nonzero(training.labels_N == label).flatten().tolist() for label in (1.0, 0.0)
    )
    first = min(max((count + 1) // 2, count - len(negative)), len(positive))
    chosen = training.subset([*positive[:first], *negative[: count - first]])
    shared = {"images": normalise(chosen.images_NCHW), "labels": chosen.labels_N.clone()}
    return shared if chosen.masks_NHW is None else shared | {"masks": chosen.masks_NHW}


def require_shareable(training: ImageSet, config: SiteConfig, plan: Plan | None) -> None:
    """Refuse a `share_samples` that the plan, or the number of training images, does not allow."""
    count = config.share_samples
    if plan is not None and count > plan.limits.max_shared_samples:
        raise ConfigurationError(
            f"share_samples = {count}: the plan accepts at most {plan.limits.max_shared_samples}; "
            "lower it"
        )
    if count > len(training):
        category, rest = training.counts()
        raise DataError(
            f"share_samples = {count}: the lab has {len(training)} training images, {category} of "
            f"the category and {rest} of the rest; lower it, or add images"
        )


def software() -> dict[str, str]:
    """Return the versions that a manifest names."""
    return {
        "rootstock": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": version("torchvision"),
    }
