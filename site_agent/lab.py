"""The context of all work at a lab, in the agent and in commands beside it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from rootstock.common.errors import ConfigurationError, DataError, NotFoundError
from rootstock.common.logs import Log
from rootstock.common.nets.architectures import image_form
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights.manifest import BlobEntry, Manifest
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.consent.consent import Consent
from rootstock.site_agent.consent.question import require_blob
from rootstock.site_agent.data.former_images import read_again
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import read
from rootstock.site_agent.data.record import read_record, record_path
from rootstock.site_agent.data.sides import Loaded
from rootstock.site_agent.recipes.interface import OnProgress
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.state import StatusFile
from rootstock.site_agent.wire.client import Published

MASKED_KINDS = ("voc",)
"""Kinds of data that say the class of every pixel."""

OWN_FILES = ("image-folder", "voc")
"""Kinds of data that are a lab's own files, which may change."""


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
        """The private images, and masks if a task needs them, read when they are first needed.

        Once a teacher net was trained, they are those that it was made with.
        """
        data = self._read()
        for finding in self.loaded.doubts():
            self.warn(finding.text)
        return data

    @cached_property
    def loaded(self) -> Loaded:
        """What there is to say of the private images, filled in as they are read."""
        return Loaded()

    @property
    def record_path(self) -> Path:
        """Where the record of the images lies that the teacher net of these settings was made with.

        Bundled datasets never change and have none.
        """
        return record_path(self.config.state, self.config.run_digest(self.published.digest))

    def _read(self) -> LabData:
        config, form = self.config, image_form(self.plan.architecture)
        masks, record = needs_masks(self.tasks), read_record(self.record_path)
        self.loaded.findings.clear()
        if record is not None:
            return read_again(config.data, config.category, form, self.loaded, record, masks=masks)
        return read(
            config.data,
            config.category,
            form,
            self.loaded,
            batch_size=config.training.batch_size,
            masks=masks,
        )

    def fetch(self, blob: BlobEntry, module: nn.Module) -> Path:
        """Download a blob of the plan or of the published heads, which the module is to load."""
        require_blob(blob, module, what="the coordinator's module")
        return self.download(blob, "plan")


@dataclass(frozen=True)
class AgentLab(Lab):
    """What the parts of an agent share besides."""

    spool: Spool
    consent: Consent
    status: StatusFile
    log: Log
    stop: threading.Event

    @cached_property
    def data(self) -> LabData:
        """The private images; their numbers, and what is doubtful about them, are logged."""
        self.status.progress("loading", message="reads the private images")
        try:
            data = self._read()
        finally:
            for finding in self.loaded.findings:
                write = self.log.warning if finding.doubtful else self.log.info
                write("data.finding", **finding.model_dump(mode="json"))
        counts = {name: part.counts() for name, part in data.parts().items()}
        self.log.info("data.read", **counts, classes=Counter(self.loaded.classes.values()))
        return data

    def remark(self, message: str) -> str:
        """Return a status message, and how many doubts there are about the images."""
        doubts = len(self.loaded.doubts())
        if doubts == 0:
            return message
        what = "1 doubt" if doubts == 1 else f"{doubts} doubts"
        return f"{message} ({what} about the images: see `rootstock site check`)"

    def look_at_data(self) -> None:
        """Read a lab's own images, so that a change since the training is said at once.

        What cannot be read now is logged; an evaluation that needs it will say so again.
        """
        if self.config.data.kind not in OWN_FILES:
            return
        try:
            self.data  # noqa: B018  (reads)
        except (DataError, NotFoundError) as error:
            self.log.warning("data.unusable", reason=str(error))

    def commit(self, staging: Path, manifest: Manifest, run: str) -> SpoolEntry:
        """Put a manifest and its blobs into the spool."""
        return self.spool.commit(staging, manifest, run)

    def progress(self, phase: str, what: str) -> OnProgress:
        """Return what long work calls with its steps."""
        return lambda step, steps, message: self.status.progress(
            phase, step, steps, self.remark(f"{what}: {message}")
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
