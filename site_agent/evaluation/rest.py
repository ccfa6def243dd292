"""Answers as a witness: how often another lab's join says yes on images that do not show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import build_category_module
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry
from rootstock.site_agent import scoring
from rootstock.site_agent.consent.question import WitnessQuestion
from rootstock.site_agent.data.class_names import slug
from rootstock.site_agent.data.images import ImageSet
from rootstock.site_agent.evaluation.measure import join_to
from rootstock.site_agent.lab import AgentLab
from rootstock.site_agent.spool.documents import RestAnswer


def rest_answer(
    lab: AgentLab, question: WitnessQuestion, fetch: Callable[[BlobEntry], Path]
) -> RestAnswer:
    """Return the share of yes on the lab's validation images of the rest; nothing else leaves.

    SchemaError if no image is left.
    """
    request, rest, task = question
    images = rest_of(lab.data.validation, lab.loaded.classes, rest.category)
    if len(images) == 0:
        raise SchemaError("a witness needs images of the rest, and this lab has none that count")
    entry = rest.category_module
    f = safetensors_io.load_frozen(
        build_category_module(rest.architecture), fetch(entry), entry, lab.device
    )
    joins = join_to(f, request, task, fetch)
    answers = scoring.logits(joins.category_module, joins.heads(), images, lab.stop)
    (y_N,) = answers.values()
    yes = 100.0 * float((rest.calibration.apply(y_N) > 0).double().mean())
    answer = RestAnswer(yes=round(yes, 2), samples=len(images))
    lab.log.info("evaluation.witnessed", category=rest.category, **answer.model_dump())
    return answer


def rest_of(images: ImageSet, classes: dict[str, str], category: str) -> ImageSet:
    """Return the images that show neither the lab's category nor, by its own labels, that one."""
    asked = slug(category)
    return images.subset(
        [
            index
            for index, key in enumerate(images.keys)
            if images.labels_N[index] == 0 and slug(classes.get(key, "")) != asked
        ]
    )
