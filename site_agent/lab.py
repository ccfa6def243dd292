"""What the parts of an agent share while it runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from rootstock.common.errors import ConfigurationError
from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.architectures import input_shape
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights.manifest import BlobEntry, Manifest
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import load
from rootstock.site_agent.data.tasks import needs_masks, tasks_of
from rootstock.site_agent.recipes.interface import OnProgress
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.state import Log, StatusFile
from rootstock.site_agent.wire.client import CoordinatorClient


@dataclass(frozen=True)
class Lab:
    """One run of an agent: its settings, its plan, its connections."""

    config: SiteConfig
    plan: Plan
    plan_digest: str
    heads: Heads | None
    """What recipe `compatible` trains below; None for other recipes."""
    client: CoordinatorClient
    key: SigningKey
    spool: Spool
    device: torch.device
    status: StatusFile
    log: Log
    stop: threading.Event

    @cached_property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The tasks that this lab teaches.

        Raises
        ------
        ConfigurationError
            See `tasks_of`.
        """
        return tasks_of(self.config, self.plan)

    @cached_property
    def data(self) -> LabData:
        """The private images, read when they are first needed.

        Raises
        ------
        DataError
            See `rootstock.site_agent.data.load.load`.
        """
        self.status.progress("loading", message="reads the private images")
        data = load(
            self.config.data,
            self.config.category,
            input_shape(self.plan.architecture),
            batch_size=self.config.training.batch_size,
            warn=lambda text: self.log.warning("image", reason=text),
            masks=needs_masks(self.tasks),
        )
        for part in ("training", "holdout", "validation"):
            category, rest = getattr(data, part).counts()
            self.log.info("images", part=part, category=category, rest=rest)
        return data

    def fetch(self, blob: BlobEntry, folder: str) -> Path:
        """Bring a blob into a folder of the state, verified."""
        return self.client.download(
            blob,
            self.config.state / folder,
            lambda done, total: self.status.progress("downloading", done, total, "fetches weights"),
        )

    def commit(self, staging: Path, manifest: Manifest, run: str) -> SpoolEntry:
        """Sign a manifest and put it and its blobs into the spool."""
        return self.spool.commit(staging, manifest, self.key.sign(manifest.canonical()), run)

    def progress(self, phase: str, what: str) -> OnProgress:
        """Return what long work tells its steps to."""
        return lambda step, steps, message: self.status.progress(
            phase, step, steps, f"{what}: {message}"
        )


def device_of(config: SiteConfig) -> torch.device:
    """Return the configured device.

    Raises
    ------
    ConfigurationError
        If PyTorch does not see it here.
    """
    device = torch.device(config.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device = '{config.device}': PyTorch sees {torch.cuda.device_count()} CUDA devices "
            "here; set device = 'cpu', or install the driver and a CUDA build of PyTorch"
        )
    return device
