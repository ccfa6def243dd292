"""Probes a teacher net in a Ray job before its admission: what it answers to synthetic images."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.artifacts.uri import open_store
from rootstock.common.documents import Document
from rootstock.common.errors import RefusedError
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec, Name, TaskSpec
from rootstock.common.weights.manifest import BlobEntry, TeacherManifest
from rootstock.common.weights.salt import unsalted
from rootstock.coordinator.jobs.probe_checks import Probed, check, probe_images, probed
from rootstock.coordinator.net.compose import loaded


class ProbeJob(Document):
    """A teacher net to run on the probe's images."""

    submission_id: Name
    manifest: TeacherManifest
    tasks: tuple[TaskSpec, ...]
    reference_architecture: ArchitectureSpec
    reference: BlobEntry
    """The category module that the net's task modules learned from, or the plan's start."""
    seconds: float = 120.0
    """How long it may take."""
    artifacts: str
    cache: str | None = None


class ProbeResult(Document):
    """What came of it."""

    refusal: str = ""
    """The check that failed, the value and the rule; empty: all passed."""


def probe(job: bytes, threads: int) -> bytes:
    """Run a `ProbeJob`, JSON in and JSON out, for Ray."""
    torch.set_num_threads(threads)
    asked = ProbeJob.parse(job, what="probe")
    store = open_store(asked.artifacts, Path(asked.cache or asked.artifacts), began=True)
    try:
        check(run_probe(asked, store))
    except RefusedError as error:
        return ProbeResult(refusal=str(error)).canonical()
    return ProbeResult().canonical()


def run_probe(job: ProbeJob, store: BlobStore) -> Probed:
    """Return what a teacher net does with the probe's images; see `loaded` for its errors."""
    manifest, spec = job.manifest, job.manifest.architecture
    tasks = {task.name: task for task in job.tasks}
    return probed(
        loaded(store, build_category_module(spec), manifest.category_module),
        {
            name: loaded(store, build_task_module(spec, tasks[name]), blob)
            for name, blob in manifest.task_modules.items()
        },
        loaded(store, build_category_module(job.reference_architecture), job.reference),
        probe_images(input_shape(spec)),
        statistics=_statistics(manifest, store),
        measured_task=manifest.measured_task or min(manifest.task_modules),
    )


def _statistics(manifest: TeacherManifest, store: BlobStore) -> dict[str, Tensor]:
    entry = manifest.statistics
    if entry is None:
        return {}
    shipped = load(store.local_path(entry.digest).read_bytes())
    return {name: unsalted(each) for name, each in shipped.items()}
