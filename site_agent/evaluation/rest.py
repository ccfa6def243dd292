"""Answers as a witness: how often another lab's join says yes on images that do not show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import build_category_module
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry
from rootstock.site_agent import scoring
from rootstock.site_agent.consent.question import WitnessQuestion
from rootstock.site_agent.consent.rounding import rounded
from rootstock.site_agent.data.class_names import slug
from rootstock.site_agent.data.images import ImageSet
from rootstock.site_agent.evaluation.measure import join_to
from rootstock.site_agent.lab import AgentLab
from rootstock.site_agent.spool.documents import RestAnswer


def rest_answer(
    lab: AgentLab, question: WitnessQuestion, fetch: Callable[[BlobEntry], Path]
) -> RestAnswer:
    """Return the share of yes on the lab's validation images of the rest; nothing else leaves.

    What may show the category under another name is left out; see `share_of_yes`. SchemaError if
    no image is left.
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
    classes = [lab.loaded.classes.get(key, "") for key in images.keys]
    named = len(images) < lab.data.validation.counts()[1]
    yes_N = (rest.calibration.apply(y_N) > 0).tolist()
    yes, samples = share_of_yes(yes_N, classes, named=named)
    answer = RestAnswer(yes=rounded(yes), samples=samples)
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


def share_of_yes(
    yes_N: Sequence[bool], classes_N: Sequence[str], *, named: bool
) -> tuple[float, int]:
    """Return the percentage of yes among images of the rest, and how many images it rests on.

    Two labs may call one thing by two names, "1" and "one", so that its images are in the rest
    here although the join is right to say yes to them. Unless images were left out by the
    category's name (`named`), those of the one class that the join says yes to most often do not
    count, where there are two classes or more. A join that says yes to everything does so on all
    the others, too; one that mistakes a single class for its category is not found.
    """
    kept = list(zip(yes_N, classes_N, strict=True))
    if not named and len(set(classes_N)) > 1:
        often = Counter(name for yes, name in kept if yes).most_common(1)
        kept = [(yes, name) for yes, name in kept if not often or name != often[0][0]]
    return 100.0 * sum(yes for yes, _ in kept) / len(kept), len(kept)
