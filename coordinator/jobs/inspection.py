"""Inspects a join in a Ray job before its commit: its outputs, and its feature space."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field, model_validator
from safetensors.torch import load
from torch import nn

from rootstock.common.artifacts.uri import open_store
from rootstock.common.documents import Document
from rootstock.common.errors import RootstockError
from rootstock.common.nets.architectures import input_shape
from rootstock.common.nets.graph import NetTree
from rootstock.common.nets.spec import Name
from rootstock.common.nets.training import in_batches
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs.feature_space import FeatureSpaces, feature_spaces
from rootstock.coordinator.jobs.join_checks import check_join, error_percent
from rootstock.coordinator.jobs.probe_checks import probe_images
from rootstock.coordinator.net.compose import compose
from rootstock.coordinator.net.fingerprint import outputs, written
from rootstock.coordinator.paths import StatePaths, job_area
from rootstock.coordinator.registry import Merge


class InspectionJob(Document):
    """A join to run on synthetic images."""

    merge_id: Name
    tree: NetTree
    """The join alone."""
    features: bool
    """Whether there is a picture of its feature space: a transplanted classification."""
    own_samples: BlobEntry | None = None
    """Samples of the operator's, in the job's area, that nothing was learned from."""
    artifacts: str
    cache: str | None = None


class Inspection(Document):
    """The result of an inspection."""

    fingerprint: str
    """See `rootstock.coordinator.net.fingerprint.written`."""
    features: FeatureSpaces | None = None
    no_features: str = Field(default="", max_length=2000)
    """Why there are none although they were asked for."""
    own_error: float | None = Field(default=None, ge=0, le=100)
    """Percent, on the operator's samples, both sides alike; None without any."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Inspection:
        if self.features is not None and self.no_features:
            raise ValueError("features are there, and a reason why they are not")
        return self


def inspection_job(
    merge: Merge, tree: NetTree, paths: StatePaths, own_samples: BlobEntry | None = None
) -> InspectionJob:
    """Return the job of a merge whose join is in a tree."""
    task = next(task for task in tree.tasks if task.name == merge.task)
    transplanted = merge.operation is OperationKind.NEW_CATEGORY
    return InspectionJob(
        merge_id=merge.id,
        tree=NetTree(
            architecture=tree.architecture,
            tasks=tree.tasks,
            category_modules={merge.category: tree.category_modules[merge.category]},
            task_modules={merge.task: tree.task_modules[merge.task]},
            edges=(tree.edge(merge.category, merge.task),),
        ),
        features=transplanted and task.kind == "binary-classification",
        own_samples=own_samples,
        artifacts=paths.artifacts,
        cache=str(paths.cache),
    )


def inspect(job: bytes, threads: int) -> bytes:
    """Run an `InspectionJob`, JSON in and JSON out, for Ray; raises as `check_join` does.

    What keeps the features alone from being computed costs the picture, not the merge.
    """
    torch.set_num_threads(threads)
    asked = InspectionJob.parse(job, what="inspection")
    store = open_store(asked.artifacts, Path(asked.cache or asked.artifacts), began=True)
    (edge,) = asked.tree.edges
    join = (asked.tree, store, edge.category, edge.task)
    net = compose(*join)
    images_NCHW = probe_images(input_shape(asked.tree.category_modules[edge.category].architecture))
    uncalibrated = nn.Sequential(net.category_module, net.adapter, net.task_module)
    check_join(in_batches(uncalibrated, images_NCHW), edge.calibration)
    own_error = None
    if asked.own_samples is not None:
        area = store.area(job_area(asked.merge_id))
        given = load(area.local_path(asked.own_samples.digest).read_bytes())
        own_error = error_percent(in_batches(net, given["images"]).flatten(), given["labels"])
    fingerprint = written(outputs(*join))
    features, reason = None, ""
    if asked.features:
        try:
            features = feature_spaces(*join)
        except (RootstockError, RuntimeError, ValueError) as error:  # LinAlgError is a RuntimeError
            reason = str(error)[:2000]
    return Inspection(
        fingerprint=fingerprint, features=features, no_features=reason, own_error=own_error
    ).canonical()
