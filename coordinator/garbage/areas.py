"""The store's private areas: samples that labs shared, and what jobs keep while they run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from rootstock.common.artifacts.gc import Count
from rootstock.common.artifacts.store import BlobStore
from rootstock.coordinator.net.objects import submitted
from rootstock.coordinator.paths import JOBS, SAMPLES, job_area, samples_area
from rootstock.coordinator.registry import MergeState, Registry, SubmissionState

_OWN = re.compile(r"(mrg|sub)-\d+")
"""What areas are called; a folder of an operator's own beside them is left alone."""

MOVED = "samples/moved"
"""The name that a store gets once no samples are among its blobs."""


def private(store: BlobStore) -> dict[str, Count]:
    """Count the blobs of the private areas, by kind."""
    counts = {}
    for kind in (SAMPLES, JOBS):
        counts[kind] = Count()
        for name in _areas(store, kind):
            for blob in store.area(f"{kind}/{name}").blobs():
                counts[kind] += blob
    return counts


def sweep_areas(registry: Registry, store: BlobStore) -> list[str]:
    """Drop the areas that a killed process has left, while no other one works; return their names.

    Areas of jobs that will go on stay, and samples of submissions that were not refused and, if
    they are not received yet, may still be.
    """
    jobs = {merge.id for merge in registry.merges.all(MergeState.QUEUED, MergeState.DISTILLING)}
    submissions = {
        upload.id
        for upload in registry.uploads.references()
        if upload.open or upload.state in (SubmissionState.RECEIVED, SubmissionState.ADMITTED)
    }
    left = [job_area(name) for name in _areas(store, JOBS) if name not in jobs]
    left += [samples_area(name) for name in _areas(store, SAMPLES) if name not in submissions]
    for area in left:
        store.drop(area)
    return left


def _areas(store: BlobStore, kind: str) -> Iterator[str]:
    return (name for name in store.areas(kind) if _OWN.fullmatch(name))


def move_samples(registry: Registry, store: BlobStore, plan_digest: str) -> int:
    """Move the samples that an earlier version left among the blobs to areas of their own; once.

    Return how many submissions had some. The name that records the move has to point at a blob that
    stays: the plan's.
    """
    if store.get_ref(MOVED) is not None:
        return 0
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for submission in registry.submissions.all():
        shared = submitted(submission).shared_samples
        if shared is not None and store.has(shared.blob.digest):
            owners[shared.blob.digest].append(submission.id)
    for digest, submissions in owners.items():
        for submission_id in submissions:
            area = store.area(samples_area(submission_id))
            area.put_file(store.local_path(digest), digest, verified=True)
        store.delete(digest)
    store.put_ref(MOVED, plan_digest)
    return sum(map(len, owners.values()))
