"""The context of all work at a lab, in the agent and in commands beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from rootstock.common.errors import ConfigurationError
from rootstock.common.identity.keys import SigningKey
from rootstock.common.logs import Log
from rootstock.common.nets.architectures import input_shape
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights.manifest import BlobEntry, Manifest
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import load
from rootstock.site_agent.recipes.interface import OnProgress
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.state import StatusFile
from rootstock.site_agent.wire.client import Published

MASKED_KINDS = ("voc",)
"""Kinds of data that say the class of every pixel."""


@dataclass(frozen=True)
class Lab:
    """A lab's settings, what the coordinator publishes, and where nets run."""

    config: SiteConfig
    published: Published
    device: torch.device
    download: Callable[[BlobEntry, str], Path]
    """Fetches a blob into a folder of the state, verified; one that is there costs nothing."""
    warn: Callable[[str], None]
    """Called with what the operator should know."""

    @property
    def plan(self) -> Plan:
        """What the coordinator asks of labs."""
        return self.published.plan

    @property
    def heads(self) -> Heads | None:
        """The auxiliary heads that recipe `compatible` trains below; None for other recipes."""
        return self.published.heads if self.config.training.recipe == "compatible" else None

    @cached_property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The tasks that this lab teaches."""
        return tasks_of(self.config, self.plan)

    @cached_property
    def data(self) -> LabData:
        """The private images, and masks if a task needs them, read when they are first needed."""
        return load(
            self.config.data,
            self.config.category,
            input_shape(self.plan.architecture),
            batch_size=self.config.training.batch_size,
            warn=self.warn,
            masks=needs_masks(self.tasks),
        )

    def fetch(self, blob: BlobEntry) -> Path:
        """Download a blob of the plan or of the published heads."""
        return self.download(blob, "plan")


@dataclass(frozen=True)
class AgentLab(Lab):
    """What the parts of an agent share besides."""

    key: SigningKey
    spool: Spool
    status: StatusFile
    log: Log
    stop: threading.Event

    @cached_property
    def data(self) -> LabData:
        """The private images; their numbers are logged."""
        self.status.progress("loading", message="reads the private images")
        data = super().data
        for part in ("training", "holdout", "validation"):
            category, rest = getattr(data, part).counts()
            self.log.info("data.loaded", part=part, category=category, rest=rest)
        return data

    def commit(self, staging: Path, manifest: Manifest, run: str) -> SpoolEntry:
        """Sign a manifest and put it and its blobs into the spool."""
        return self.spool.commit(staging, manifest, self.key.sign(manifest.canonical()), run)

    def progress(self, phase: str, what: str) -> OnProgress:
        """Return what long work calls with its steps."""
        return lambda step, steps, message: self.status.progress(
            phase, step, steps, f"{what}: {message}"
        )


def tasks_of(config: SiteConfig, plan: Plan) -> tuple[TaskSpec, ...]:
    """Return the tasks that the teacher learns, in the plan's order.

    Refuses one that the plan does not have, and one that needs masks that the lab lacks.
    """
    wanted = [task.name for task in plan.tasks] if config.tasks is None else config.tasks
    for name in wanted:
        if plan.task(name) is None:
            raise ConfigurationError(
                f"tasks: the plan of net '{plan.net}' has no task '{name}'; choose from "
                + ", ".join(task.name for task in plan.tasks)
            )
    tasks = tuple(task for task in plan.tasks if task.name in wanted)
    for task in tasks:
        if needs_masks([task]) and config.data.kind not in MASKED_KINDS:
            raise ConfigurationError(
                f"task '{task.name}' is of kind '{task.kind}' and data.kind = "
                f"'{config.data.kind}' has labels of images only, no masks; give data of kind "
                f"{', '.join(map(repr, MASKED_KINDS))}, or teach what there are labels for: "
                f"tasks = {[other.name for other in plan.tasks if not needs_masks([other])]}"
            )
    return tasks


def needs_masks(tasks: Iterable[TaskSpec]) -> bool:
    """Say whether any of the tasks labels pixels."""
    return any(task.kind == "binary-segmentation" for task in tasks)


def set_up_torch(config: SiteConfig) -> torch.device:
    """Set the configured number of threads, and return the configured device."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device = '{config.device}': PyTorch sees {torch.cuda.device_count()} CUDA devices "
            "here; set device = 'cpu', or install the driver and a CUDA build of PyTorch"
        )
    return device
