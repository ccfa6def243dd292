"""The lab as it stands, for commands beside an agent that may run: its own net, and the plan.

Nothing here writes to the spool or to the agent's status; a look does not disturb the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import torch
from torch import nn

from rootstock.common.errors import NotFoundError, RefusedError
from rootstock.common.identity.keys import load_or_create
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry, TeacherManifest
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import load
from rootstock.site_agent.data.tasks import needs_masks
from rootstock.site_agent.lab import device_of
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.spool.spool import SpoolEntry, read_entry
from rootstock.site_agent.teacher.train import run_digest
from rootstock.site_agent.wire.client import CoordinatorClient, OnRetry, Published

NEVER = Event()
"""A stop that nobody asks for: Ctrl-C ends a command."""


@dataclass(frozen=True)
class StoredTeacher:
    """A teacher net in the spool, shipped or not."""

    entry: SpoolEntry
    manifest: TeacherManifest

    def category_module(self, device: torch.device) -> nn.Sequential:
        """Return f with its weights, frozen and in evaluation mode.

        Raises
        ------
        SchemaError, IntegrityError
            If the file is not what the manifest says.
        """
        blob = self.manifest.category_module
        f = build_category_module(self.manifest.architecture)
        return safetensors_io.load_frozen(f, self.entry.blob(blob.digest), blob, device)

    def task_module(self, task: TaskSpec, device: torch.device) -> nn.Sequential:
        """Return g of a task with its weights; see `category_module`."""
        blob = self.manifest.task_modules[task.name]
        g = build_task_module(self.manifest.architecture, task)
        return safetensors_io.load_frozen(g, self.entry.blob(blob.digest), blob, device)


@dataclass(frozen=True)
class LabSnapshot:
    """What a command starts from.

    Attributes
    ----------
    config
        The lab's.
    published
        The coordinator's plan, and auxiliary heads if there are any.
    own
        The teacher net of that plan and these settings.
    others
        Further teachers in the spool: of other plans or settings.
    fetch
        Brings a blob into the state's `plan` folder, verified; one that is there costs nothing.
    device
        Where nets run.
    """

    config: SiteConfig
    published: Published
    own: StoredTeacher
    others: tuple[StoredTeacher, ...]
    fetch: Callable[[BlobEntry], Path]
    device: torch.device

    @property
    def architecture(self) -> ArchitectureSpec:
        """The own net's architecture."""
        return self.own.manifest.architecture

    def tasks(self) -> list[TaskSpec]:
        """Return the tasks of the own net, in the plan's order."""
        taught = self.own.manifest.task_modules
        return [task for task in self.published.plan.tasks if task.name in taught]

    def net(self) -> Teacher:
        """Return the own net, frozen and in evaluation mode."""
        modules = {task.name: self.own.task_module(task, self.device) for task in self.tasks()}
        own = self.own.category_module(self.device)
        return Teacher(own, modules, extractor=self.architecture.extractor)

    def data(self, tasks: list[TaskSpec], warn: Callable[[str], None]) -> LabData:
        """Read the private images, and masks if a task needs them.

        Raises
        ------
        DataError
            See `rootstock.site_agent.data.load.load`.
        """
        config = self.config
        return load(
            config.data,
            config.category,
            input_shape(self.architecture),
            batch_size=config.training.batch_size,
            warn=warn,
            masks=needs_masks(tasks),
        )


@contextmanager
def standing(config: SiteConfig, on_retry: OnRetry) -> Iterator[LabSnapshot]:
    """Find the lab's own net, and ask the coordinator what it publishes now.

    Parameters
    ----------
    config
        The lab's.
    on_retry
        Told of every failed try to reach the coordinator.

    Raises
    ------
    NotFoundError
        If the spool holds no teacher of the plan and the settings that hold now.
    UnreachableError
        If the coordinator does not answer for `network.patience_seconds`.
    ConfigurationError
        If the configured device is not there.
    """
    device = device_of(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    kept = stored_teachers(config.state / "spool")
    if not kept:
        raise NotFoundError(
            f"{config.state}: holds no trained teacher net; let `rootstock site run` train one"
        )
    key = load_or_create(config.state / "identity" / "site.key")
    client = CoordinatorClient(config, key, NEVER, on_retry)
    try:
        patience = config.network.patience_seconds
        published = client.patient(client.plan, patience_seconds=patience)
        run = run_digest(config, published.digest)
        own = next((each for each in kept if each.entry.run == run), None)
        if own is None:
            raise NotFoundError(
                f"{config.state}: holds {len(kept)} trained teacher net(s), none under the plan "
                f"{published.digest[:12]} and the settings of this site.toml; let `rootstock site "
                "run` train one, or give the settings that it was trained with"
            )
        yield LabSnapshot(
            config=config,
            published=published,
            own=own,
            others=tuple(each for each in kept if each is not own),
            fetch=lambda blob: client.download(blob, config.state / "plan", lambda *_: None),
            device=device,
        )
    finally:
        client.close()


def stored_teachers(root: Path) -> list[StoredTeacher]:
    """Return the teachers of a spool, and leave everything as it is.

    An agent may be running: opening its spool as a `Spool` would set aside what it is just
    writing. What cannot be read is left out.

    Parameters
    ----------
    root
        The spool's folder; it need not be there.

    Returns
    -------
    Acknowledged ones first; blobs are checked when they are read.
    """
    found: dict[str, StoredTeacher] = {}
    for kind in ("entries", "acknowledged"):  # the way that entries take, so that none is missed
        for folder in sorted((root / kind).glob("*")):
            try:
                entry = read_entry(folder)
            except (RefusedError, FileNotFoundError, NotADirectoryError):
                continue
            if isinstance(entry.manifest, TeacherManifest):
                found[entry.digest] = StoredTeacher(entry, entry.manifest)
    return sorted(found.values(), key=lambda each: not each.entry.acknowledged)
