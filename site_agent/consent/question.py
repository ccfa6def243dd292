"""Which questions a lab answers: about its own teacher nets, of what can be joined to them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from rootstock.common.errors import LimitError, NotFoundError, SchemaError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    feature_shape,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec, require_fit
from rootstock.common.protocol import WITNESSES_PER_MERGE, Plan, evaluation_id, witness_id
from rootstock.common.weights.manifest import BlobEntry, TeacherManifest
from rootstock.common.weights.safetensors_header import MAX_HEADER_BYTES
from rootstock.common.weights.schema import DTYPES, require_layout
from rootstock.common.weights.schema import layout as layout_of
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.consent.budget import Cost, require_within
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.wire.messages import EvaluationRequest, RestQuestion

QUESTIONS_PER_MERGE = 2
"""A lab answers no more: candidates, and further ones where none of those will do."""


class Question(NamedTuple):
    """A question that a lab may answer."""

    request: EvaluationRequest
    teacher: SpoolEntry
    manifest: TeacherManifest
    task: TaskSpec


class WitnessQuestion(NamedTuple):
    """A question about another lab's join that a lab may answer."""

    request: EvaluationRequest
    rest: RestQuestion
    task: TaskSpec


def admit(
    request: EvaluationRequest,
    spool: Spool,
    plan: Plan,
    tasks: tuple[TaskSpec, ...],
    now: datetime,
) -> Question | WitnessQuestion:
    """Refuse a question that no honest coordinator asks; nothing was fetched for it yet.

    NotFoundError if it is about no teacher net of this lab's that the coordinator has given a
    receipt for; LimitError if it is old; SchemaError if a blob that it names does not fit.
    """
    until = datetime.fromtimestamp(request.expires_at, UTC)
    if now > until:
        raise LimitError(
            f"the question was good until {until:%Y-%m-%d %H:%M} UTC, and it is "
            f"{now:%Y-%m-%d %H:%M} UTC at the lab; check the clocks, or ask again"
        )
    if request.rest is not None:
        return _of_witness(request, request.rest, spool, plan, tasks)
    known = [evaluation_id(request.merge_id, turn + 1) for turn in range(QUESTIONS_PER_MERGE)]
    if request.evaluation_id not in known:
        raise SchemaError(
            f"evaluation '{request.evaluation_id}' is none of merge '{request.merge_id}', whose "
            f"questions are {' and '.join(known)}; ask no more of a merge"
        )
    teacher, manifest = _teacher(request.manifest_digest, spool)
    task = _task(request, tasks)
    _require_planned("g_S", request.architecture, plan)
    _require_joins(request, manifest.architecture, task)
    return Question(request, teacher, manifest, task)


def _of_witness(
    request: EvaluationRequest,
    rest: RestQuestion,
    spool: Spool,
    plan: Plan,
    tasks: tuple[TaskSpec, ...],
) -> WitnessQuestion:
    """Refuse what is more than one join's share of yes, or fits neither the plan nor itself.

    Of each merge a lab is one witness, asked once at each turn of the merge.
    """
    turns = [
        [
            witness_id(request.merge_id, number + 1, turn + 1)
            for number in range(WITNESSES_PER_MERGE)
        ]
        for turn in range(QUESTIONS_PER_MERGE)
    ]
    siblings = next((turn for turn in turns if request.evaluation_id in turn), None)
    if siblings is None:
        raise SchemaError(
            f"evaluation '{request.evaluation_id}' is no witness's of merge '{request.merge_id}'"
        )
    if not any(isinstance(entry.manifest, TeacherManifest) for entry in spool.acknowledged()):
        raise NotFoundError(
            "this coordinator has given no receipt for a teacher net of this lab's; a witness is a "
            "lab that has shipped one"
        )
    for each in siblings:
        if each != request.evaluation_id and spool.reported(each) is not None:
            raise SchemaError(
                f"this lab has answered '{each}' as a witness of merge '{request.merge_id}'; ask "
                "it once at each turn"
            )
    if len(request.candidates) != 1 or request.refinement_spec is not None:
        raise SchemaError("a witness answers about one join, and trains nothing")
    task = _task(request, tasks)
    own = input_shape(plan.architecture)
    if task.kind != "binary-classification" or input_shape(rest.architecture) != own:
        raise SchemaError(f"task '{task.name}': a witness answers about images of {own} alone")
    _require_planned("g_S", request.architecture, plan)
    _require_planned("f", rest.architecture, plan)
    with torch.device("meta"):
        f = build_category_module(rest.architecture)
    require_blob(rest.category_module, f, what="f")
    _require_joins(request, rest.architecture, task)
    return WitnessQuestion(request, rest, task)


def _task(request: EvaluationRequest, tasks: tuple[TaskSpec, ...]) -> TaskSpec:
    task = next((task for task in tasks if task.name == request.task), None)
    if task is None:
        taught = ", ".join(task.name for task in tasks)
        raise SchemaError(
            f"this lab teaches {taught}, not '{request.task}'; ask about a task of its manifest"
        )
    return task


def _require_planned(what: str, architecture: ArchitectureSpec, plan: Plan) -> None:
    if architecture.above() != plan.architecture:
        raise SchemaError(
            f"{what} is of architecture {architecture.above().described()}, the plan's is "
            f"{plan.architecture.described()}; ask about modules of the plan's"
        )


def _teacher(digest: str, spool: Spool) -> tuple[SpoolEntry, TeacherManifest]:
    teacher = spool.find(digest)
    if teacher is None:
        raise NotFoundError(
            f"this lab has no teacher with manifest {digest}; its state folder "
            "was set up anew: withdraw the merge, and let the lab ship again"
        )
    if not isinstance(teacher.manifest, TeacherManifest):
        raise SchemaError(f"manifest {digest} is no teacher; ask for one that is")
    if not teacher.acknowledged:
        raise NotFoundError(
            f"this coordinator has given no receipt for manifest {digest}; ask about a teacher net "
            "that it has received"
        )
    return teacher, teacher.manifest


def _require_joins(request: EvaluationRequest, own: ArchitectureSpec, task: TaskSpec) -> None:
    given, wanted = feature_shape(own), feature_shape(request.architecture)
    require_maps_fit(own, request.architecture, task)
    with torch.device("meta"):
        g = build_task_module(request.architecture, task)
    require_blob(request.task_module, g, what="g_S")
    for name, entry in request.candidates.items():
        what = f"candidate '{name}'"
        require_fit(what, given, wanted, entry.spec if entry is not None else None)
        if entry is not None:
            with torch.device("meta"):
                adapter = Adapter(entry.spec)
            require_blob(entry.blob, adapter, what=what)
    if request.refinement_spec is not None:
        require_fit("the refined adapter", given, wanted, request.refinement_spec)


def require_maps_fit(own: ArchitectureSpec, other: ArchitectureSpec, task: TaskSpec) -> None:
    """Raise SchemaError if a segmentation's maps are of another size than the lab's images."""
    (_, *images), (_, *maps) = input_shape(own), input_shape(other)
    if task.kind == "binary-segmentation" and images != maps:
        raise SchemaError(
            f"task '{task.name}': g_S labels images of {maps[0]}×{maps[1]} pixels and the lab's "
            f"have {images[0]}×{images[1]}; join a task module for images of that size"
        )


def require_blob(entry: BlobEntry, module: nn.Module, *, what: str) -> None:
    """Refuse to fetch a blob that a module could not load, or that is larger than its tensors."""
    expected = layout_of(module)
    require_layout(expected, entry, what=what)
    tensors = sum(DTYPES[dtype].itemsize * prod(shape) for dtype, shape in expected.values())
    if not tensors <= entry.size <= 8 + MAX_HEADER_BYTES + tensors:
        raise SchemaError(
            f"{what}: blob {entry.digest} has {entry.size} bytes, its tensors have {tensors}; a "
            f"file of them has {MAX_HEADER_BYTES} bytes more at most"
        )


def blobs_of(request: EvaluationRequest) -> Iterator[BlobEntry]:
    """Yield what a question has the lab fetch."""
    yield request.task_module
    if request.rest is not None:
        yield request.rest.category_module
    yield from (entry.blob for entry in request.candidates.values() if entry is not None)


def cost_of(question: Question | WitnessQuestion, config: SiteConfig, downloads: Path) -> Cost:
    """Return what a question draws at most; blobs that are in the folder are not fetched.

    LimitError if that is more than a day's budget.
    """
    request = question.request
    sizes = {
        blob.digest: blob.size
        for blob in blobs_of(request)
        if not (downloads / blob.digest).exists()
    }
    if isinstance(question, WitnessQuestion):
        cost = Cost(numbers=2, bytes_down=sum(sizes.values()))  # the share of yes, and the images
        require_within(cost, config.consent)
        return cost
    refines = request.refinement_spec is not None and config.refinement.enabled
    scores = 2 if question.task.kind == "binary-segmentation" else 1  # error, mean IoU
    calibrated = 2 + scores if config.evaluation.calibration else 0
    numbers = (scores + 1 + calibrated) * len(request.candidates)  # and the images
    if refines:
        numbers += scores + 2 + calibrated  # and steps and seconds
    cost = Cost(
        numbers=numbers,
        bytes_down=sum(sizes.values()),
        refinement_steps=config.refinement.steps if refines else 0,
    )
    require_within(cost, config.consent)
    return cost
