"""The lab as a command beside its agent sees it: its own net, and what the coordinator publishes.

Nothing here writes to the spool or to the agent's status; a look does not disturb the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rootstock.common.errors import NotFoundError
from rootstock.common.identity.keys import fingerprint
from rootstock.common.nets.architectures import build_category_module, build_task_module
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.identity import coordinator_key
from rootstock.site_agent.lab import Lab, set_up_torch
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.spool.spool import SpoolEntry, read_entries
from rootstock.site_agent.wire.client import CoordinatorClient, OnRetry


@dataclass(frozen=True)
class StoredTeacher:
    """A teacher net in the spool, shipped or not."""

    entry: SpoolEntry
    manifest: TeacherManifest

    def category_module(self, device: torch.device) -> nn.Sequential:
        """Return f with its weights, frozen and in evaluation mode."""
        blob = self.manifest.category_module
        f = build_category_module(self.manifest.architecture)
        return safetensors_io.load_frozen(f, self.entry.blob(blob.digest), blob, device)

    def task_module(self, task: TaskSpec, device: torch.device) -> nn.Sequential:
        """Return g of a task with its weights, frozen and in evaluation mode."""
        blob = self.manifest.task_modules[task.name]
        g = build_task_module(self.manifest.architecture, task)
        return safetensors_io.load_frozen(g, self.entry.blob(blob.digest), blob, device)


@dataclass(frozen=True)
class LabSnapshot(Lab):
    """A lab and the teacher nets in its spool."""

    own: StoredTeacher
    """The teacher net of the published plan and these settings."""
    others: tuple[StoredTeacher, ...]
    """Further teachers in the spool: of other plans or settings."""

    @property
    def architecture(self) -> ArchitectureSpec:
        """The own net's architecture."""
        return self.own.manifest.architecture

    def net(self) -> Teacher:
        """Return the own net, frozen and in evaluation mode."""
        modules = {task.name: self.own.task_module(task, self.device) for task in self.tasks}
        own = self.own.category_module(self.device)
        return Teacher(own, modules, extractor=self.architecture.extractor)


@contextmanager
def snapshot(
    config: SiteConfig, on_retry: OnRetry, warn: Callable[[str], None]
) -> Iterator[LabSnapshot]:
    """Find the lab's own net, and ask the coordinator what it publishes now."""
    device = set_up_torch(config)
    client = CoordinatorClient(config, None, on_retry)
    try:
        stored = stored_teachers(config.state / "spool", coordinator_key(config))
        if not stored:
            raise NotFoundError(
                f"{config.state}: holds no trained teacher net; let `rootstock site run` train one"
            )
        patience = config.network.patience_seconds
        published = client.patient(client.plan, patience_seconds=patience)
        run = config.run_digest(published.digest)
        own = next((each for each in stored if each.entry.run == run), None)
        if own is None:
            raise NotFoundError(
                f"{config.state}: holds {len(stored)} trained teacher net(s), none under the plan "
                f"{published.digest[:12]} and the settings of this site.toml; let `rootstock site "
                "run` train one, or give the settings that it was trained with"
            )
        yield LabSnapshot(
            config=config,
            published=published,
            device=device,
            download=lambda blob, folder: client.download(
                blob, config.state / folder, lambda *_: None
            ),
            warn=warn,
            own=own,
            others=tuple(each for each in stored if each is not own),
        )
    finally:
        client.close()


def stored_teachers(root: Path, coordinator: bytes | None = None) -> list[StoredTeacher]:
    """Return the teachers of a spool, and leave everything as it is.

    An agent may be running: opening its spool as a `Spool` would quarantine what it is just
    writing. What cannot be read is left out; blobs are checked when they are read. Those come first
    that the coordinator of that public key has acknowledged.
    """
    name = "" if coordinator is None else fingerprint(coordinator)
    found: dict[str, StoredTeacher] = {}
    for kind in ("entries", "acknowledged"):  # the way that entries take, so that none is missed
        for entry in read_entries(root / kind, name, lambda *_: None):
            if isinstance(entry.manifest, TeacherManifest):
                found[entry.digest] = StoredTeacher(entry, entry.manifest)
    return sorted(found.values(), key=lambda each: not each.entry.acknowledged)
