"""Adapts the lab's own net to images of another domain that nobody labelled (paper 004, 5.1).

Only rotations of those images, under the published rotation head, decide what f becomes. Labels,
where the operator has some, are for the report.

Shapes: N images, C channels, S side.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from rootstock.common.compatible.adaptation import (
    AdaptationSettings,
    OnStep,
    adapt,
    rotation_accuracy,
)
from rootstock.common.compatible.batchnorm import norms, re_estimate_below
from rootstock.common.compatible.rotation import TURNS
from rootstock.common.errors import ConfigurationError, DataError, NotFoundError, SchemaError
from rootstock.common.image_files.decoding import GreyRange
from rootstock.common.image_files.reading import ImageReader
from rootstock.common.images import SIDES, read_unlabelled
from rootstock.common.nets.architectures import build_head, image_form
from rootstock.common.nets.spec import ImageForm, TaskSpec
from rootstock.common.nets.training import device_of
from rootstock.common.protocol import Heads
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry
from rootstock.site_agent import scoring
from rootstock.site_agent.data.images import ImageSet
from rootstock.site_agent.lab import Lab
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.teacher.package import software
from rootstock.site_agent.transfer.adapt_card import Adapted, AdaptedFacts, Rotations, TargetErrors
from rootstock.site_agent.transfer.snapshot import LabSnapshot

_REMEDY = "ask its operator for `rootstock coordinator heads publish --images FOLDER`"


def adapt_own(
    lab: LabSnapshot,
    images: Path,
    labelled: Path | None,
    settings: AdaptationSettings,
    on_step: OnStep,
) -> Adapted:
    """Adapt the lab's own net to a folder of the target's images, at any depth.

    On yes/… and no/… images of the target, if `labelled` is a folder of such, errors are measured
    and nothing is chosen. The coordinator must publish a rotation head.
    """
    rotation_head = _rotation_head(lab)
    form = image_form(lab.architecture)
    judging = [task.name for task in _judging(lab, labelled)]
    grey_range, most = lab.config.data.grey_range, lab.config.data.max_images
    images_NCSS = read_unlabelled(images, form, ImageReader(grey_range), lab.warn, most=most)
    test = None if labelled is None else read_labelled(labelled, form, grey_range, lab.warn)
    own_NCSS = lab.data.holdout.images_NCHW
    net = lab.net()
    result = adapt(net.category_module, rotation_head, images_NCSS, settings, on_step)
    re_estimated = recombined(net.category_module, net.task_modules, images_NCSS)
    adapted = recombined(result.category_module, net.task_modules, images_NCSS)
    errors = {}
    if test is not None:
        before, between, after = (_errors(each, test) for each in (net, re_estimated, adapted))
        errors = {
            task: TargetErrors(source=before[task], re_estimated=between[task], adapted=after[task])
            for task in judging
        }
    layers = [len(norms(nn.Sequential(net.category_module, g))) for g in net.task_modules.values()]
    facts = AdaptedFacts(
        site=lab.config.site,
        category=lab.config.category,
        category_architecture=lab.architecture,
        made_of=_made_of(lab, images_NCSS, test),
        settings=settings,
        batch_norm_layers=max(layers),
        images=len(images_NCSS),
        learned_from=result.learned_from,
        judged_on=result.judged_on,
        step=result.step,
        rotations=Rotations(
            own=rotation_accuracy(net.category_module, rotation_head, own_NCSS),
            source=result.source,
            re_estimated=result.re_estimated,
            adapted=result.adapted,
        ),
        changed_answers=_changed(re_estimated, adapted, images_NCSS),
        labelled=0 if test is None else len(test),
        errors=errors,
        software=software(),
    )
    return Adapted(adapted, facts)


def recombined(
    category_module: nn.Sequential, task_modules: dict[str, nn.Sequential], images_NCSS: Tensor
) -> Teacher:
    """Put copies of f and every g together, with BatchNorm statistics of unlabelled images."""
    f = copy.deepcopy(category_module)
    heads = copy.deepcopy(task_modules)
    re_estimate_below(f, heads.values(), images_NCSS, device_of(f))
    return Teacher(f, heads)


def read_labelled(
    folder: Path,
    form: ImageForm,
    grey_range: GreyRange | None,
    note: Callable[[str], None],
) -> ImageSet:
    """Read yes/… and no/… images below a folder."""
    parts, labels = [], []
    for side, label in SIDES:
        if not (folder / side).is_dir():
            raise DataError(
                f"--labelled {folder}: has no folder '{side}'; give yes/… with images that show "
                "the category and no/… with images that do not"
            )
        parts.append(read_unlabelled(folder / side, form, ImageReader(grey_range), note))
        labels.append(torch.full((len(parts[-1]),), label))
    images_NCSS = torch.cat(parts)
    keys = tuple(str(index) for index in range(len(images_NCSS)))
    return ImageSet(images_NCSS, torch.cat(labels), keys)


def _published_rotation_head(lab: Lab) -> tuple[Heads, BlobEntry]:
    heads = lab.published.heads
    if heads is None or heads.rotation is None:
        there = "no heads" if heads is None else f"heads number {heads.number} ({heads.origin})"
        raise NotFoundError(
            f"the coordinator publishes {there} and no rotation head, which adapting needs; "
            f"{_REMEDY}"
        )
    return heads, heads.rotation


def _rotation_head(lab: LabSnapshot) -> nn.Sequential:
    heads, blob = _published_rotation_head(lab)
    head = build_head(lab.architecture, TURNS)
    try:
        return safetensors_io.load_frozen(head, lab.fetch(blob, head), blob, lab.device)
    except SchemaError as error:
        raise SchemaError(
            f"the published rotation head (heads number {heads.number}, {heads.origin}) does not "
            f"fit architecture {lab.architecture.above().described()}: {error}; {_REMEDY}"
        ) from error


def _judging(lab: Lab, labelled: Path | None) -> list[TaskSpec]:
    tasks = [task for task in lab.tasks if task.kind == "binary-classification"]
    if labelled is not None and not tasks:
        raise ConfigurationError(
            f"--labelled {labelled}: says yes or no of images, and this lab's tasks "
            f"({', '.join(task.name for task in lab.tasks)}) label pixels; leave it out"
        )
    return tasks


def _answers(net: Teacher, images: ImageSet) -> dict[str, Tensor]:
    return scoring.logits(net.category_module, net.task_modules, images)


def _errors(net: Teacher, images: ImageSet) -> dict[str, float]:
    return {
        task: scoring.error_percent(y_N, images.labels_N)
        for task, y_N in _answers(net, images).items()
        if y_N.ndim == 1
    }


def _changed(before: Teacher, after: Teacher, images_NCSS: Tensor) -> dict[str, float]:
    """Return by task the percentage of answers that are others: of images, or of their pixels."""
    count = len(images_NCSS)
    images = ImageSet(images_NCSS, torch.zeros(count), tuple(map(str, range(count))))
    first, second = _answers(before, images), _answers(after, images)
    return {
        task: 100 * float(((y_N > 0) != (second[task] > 0)).float().mean())
        for task, y_N in first.items()
    }


def _made_of(lab: LabSnapshot, images_NCSS: Tensor, test: ImageSet | None) -> dict[str, str]:
    manifest = lab.own.manifest
    heads, rotation = _published_rotation_head(lab)
    return {
        "teacher": lab.own.entry.digest,
        "category_module": manifest.category_module.digest,
        **{f"task_module/{task}": blob.digest for task, blob in manifest.task_modules.items()},
        "heads": heads.content_digest(),
        "rotation_head": rotation.digest,
        "images": hashlib.sha256(images_NCSS.numpy().tobytes()).hexdigest(),
        **({} if test is None else {"labelled": test.digest()}),
    }
