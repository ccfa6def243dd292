"""Asks other labs how often a join says yes on images that do not show its category."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from rootstock.common.nets.graph import Edge, NetTree
from rootstock.common.nets.spec import TaskKind
from rootstock.common.protocol import WITNESSES_PER_MERGE, witness_id
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth import witnesses as rules
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.registry import OPEN_MERGES, Evaluation, Merge
from rootstock.coordinator.registry.documents import EvaluationRequest, RestQuestion
from rootstock.coordinator.registry.wait import wait_for

ABLE: TaskKind = "binary-classification"
"""Pixels of images without the category have no label, so only answers about images count."""


@dataclass(frozen=True)
class Testimony:
    """What the witnesses of a merge have said."""

    asked: int = 0
    shares: tuple[rules.YesShare, ...] = ()
    """From each that answered with enough images."""


async def testimony(
    context: CoordinatorContext,
    merge: Merge,
    site: str,
    candidate: Candidate | None,
    tree: NetTree,
    turn: int,
) -> Testimony:
    """Ask the witnesses of a join that is in a tree, and wait for them, patience allowing.

    Asked again at the same turn, the same ones stay: what they were asked about is that turn's
    candidate. An operator's decision, or the merge's end, ends the wait.
    """
    task = next(task for task in tree.tasks if task.name == merge.task)
    if context.config.witnesses.number == 0 or task.kind != ABLE:
        return Testimony()
    asked = await asyncio.to_thread(_ask, context, merge, site, candidate, tree, turn)
    if not asked:
        return Testimony()
    patience = context.config.witnesses.patience_days * 24 * 3600
    fewest = max(context.config.acceptance.min_samples, 1)

    def look() -> Testimony | None:
        found = _questions(context, merge, turn)
        late = time.time() > max(each.requested_at for each in found) + patience
        waits = any(each.report is None for each in found) and not late
        present = context.registry.merges.get(merge.id)
        if waits and present.decision is None and present.state in OPEN_MERGES:
            return None
        rests = [each.report.rest for each in found if each.report is not None]
        given = (rest for rest in rests if rest is not None and rest.samples >= fewest)
        return Testimony(len(found), tuple(rules.YesShare(x.yes, x.samples) for x in given))

    return await wait_for(context.registry, merge.id, look)


def _ask(
    context: CoordinatorContext,
    merge: Merge,
    site: str,
    candidate: Candidate | None,
    tree: NetTree,
    turn: int,
) -> list[Evaluation]:
    if not (asked := _questions(context, merge, turn)):
        labs = _labs(context, merge, tree) - {site}
        edge = tree.edge(merge.category, merge.task)
        for number, lab in enumerate(
            rules.chosen(merge.id, labs, context.config.witnesses.number), start=1
        ):
            question = witness_id(merge.id, number, turn)
            request = _request(context, merge, candidate, tree, edge, question)
            asked.append(context.registry.evaluations.request(lab, request))
    return asked


def _questions(context: CoordinatorContext, merge: Merge, turn: int) -> list[Evaluation]:
    everything = context.registry.evaluations.of_merges([merge.id])
    known = {witness_id(merge.id, each + 1, turn) for each in range(WITNESSES_PER_MERGE)}
    return [each for each in everything if each.id in known]


def _labs(context: CoordinatorContext, merge: Merge, tree: NetTree) -> set[str]:
    """Return the labs, none of them disabled, whose categories are joined to the merge's task."""
    able = {site.name for site in context.registry.sites.all() if site.disabled_at is None}
    joined = {edge.category for edge in tree.edges if edge.task == merge.task}
    digests = {tree.category_modules[each].submission for each in joined - {merge.category}}
    return able & {context.teacher_of(digest).site for digest in digests}


def _request(
    context: CoordinatorContext,
    merge: Merge,
    candidate: Candidate | None,
    tree: NetTree,
    edge: Edge,
    question: str,
) -> EvaluationRequest:
    f, g = tree.category_modules[merge.category], tree.task_modules[merge.task]
    return EvaluationRequest(
        evaluation_id=question,
        merge_id=merge.id,
        manifest_digest=f.submission,
        task=merge.task,
        architecture=g.architecture,
        task_module=g.blob,
        candidates={candidate or Candidate.NO_ADAPTER: edge.adapter},
        rest=RestQuestion(
            # As the lab calls it: its second one has another name in the net.
            category=context.teacher_of(f.submission).category,
            category_module=f.blob,
            architecture=f.architecture,
            calibration=edge.calibration,
        ),
    )
