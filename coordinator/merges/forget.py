"""Deletes the samples that a lab has shared."""

from __future__ import annotations

import structlog

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.paths import samples_area
from rootstock.coordinator.registry import OPEN_MERGES
from rootstock.coordinator.registry.documents import SamplesForgotten


def forget_samples(context: CoordinatorContext, submission_id: str) -> int:
    """Delete the samples that came with a submission, tell its lab, and return how many they were.

    Nets and their history stay as they are: samples are no part of them. NotFoundError if there are
    none, or none any more; ConflictError while a merge may learn from them.
    """
    submission = context.registry.submissions.get(submission_id)
    shared, area = context.teacher(submission).shared_samples, samples_area(submission_id)
    if shared is None or not context.store.area(area).has(shared.blob.digest):
        raise NotFoundError(f"submission {submission_id} has no samples here; nothing to forget")
    for merge in context.registry.merges.of_submission(submission_id):
        if merge.state in OPEN_MERGES:
            raise ConflictError(
                f"merge {merge.id} may still learn from the samples of {submission_id}; wait for "
                "its end, or reject it"
            )
    context.store.drop(area)
    news = SamplesForgotten(submission_id=submission_id, count=shared.count)
    context.registry.events.append(news.to(submission.site))
    structlog.get_logger("samples").info(
        "samples.forgotten", submission=submission_id, site=submission.site, count=shared.count
    )
    return shared.count
