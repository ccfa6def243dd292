"""Auxiliary heads, published beside the plan: what makes labs compatible before any adapter.

A lab whose recipe is `compatible` trains its category module below these frozen heads as well as
its own task modules (Compatible Representations, incremental training), so that what it ships
fits the net's task modules as they are. Heads are blobs in the store and one document that names
them, `heads.json` in the state folder; a service that runs reads it whenever it has changed, so
that they can be published, replaced and retired at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.compatible.rotation import TURNS, RotationSettings, learn_rotation_head
from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.files import storage_errors, write_bytes
from rootstock.common.images.decode import normalise
from rootstock.common.images.folder import read_unlabelled
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    initialise,
    input_shape,
)
from rootstock.common.nets.graph import ModuleRef, NetTree
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.registry import Registry
from rootstock.coordinator.registry.documents import HeadsChanged

CurrentHeads = Callable[[], Heads | None]


class HeadsFile:
    """The document that says which heads are published now.

    Retired heads leave their number behind, so that the next ones have a higher one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._last: Heads | None = None

    def current(self) -> Heads | None:
        """Return the heads that labs train below now, or None."""
        last = self.last()
        return last if last is not None and last.blobs() else None

    def last(self) -> Heads | None:
        """Return what was written last: without blobs if it was retired; None if never."""
        with storage_errors(self._path):
            try:
                found = self._path.stat()
            except FileNotFoundError:
                return None
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                self._last = Heads.parse(self._path.read_bytes(), what=f"heads {self._path}")
                self._seen = seen
        return self._last

    def write(self, heads: Heads, registry: Registry) -> None:
        """Replace the document, and tell every lab."""
        write_bytes(self._path, heads.canonical())
        number = heads.number if heads.blobs() else 0
        registry.events.append(HeadsChanged(number=number, origin=heads.origin).to(None))


def publish(
    file: HeadsFile,
    registry: Registry,
    origin: str,
    task_modules: dict[str, BlobEntry],
    rotation: BlobEntry | None = None,
) -> Heads:
    """Publish heads in place of those there are; labs that train from now on train below them.

    Raises
    ------
    ConflictError
        If just these are published.
    """
    last = file.last()
    heads = Heads(
        number=1 if last is None else last.number + 1,
        origin=origin,
        task_modules=task_modules,
        rotation=rotation,
    )
    if last is not None and last == heads.model_copy(update={"number": last.number}):
        raise ConflictError(f"just these heads are published, as number {last.number}")
    file.write(heads, registry)
    return heads


def retire(file: HeadsFile, registry: Registry, reason: str) -> Heads:
    """Take the published heads back; labs with recipe `compatible` wait for the next ones.

    Returns
    -------
    What was retired.

    Raises
    ------
    NotFoundError
        If none are published.
    """
    heads = file.current()
    if heads is None:
        raise NotFoundError("no heads are published; there is nothing to retire")
    gone = Heads(number=heads.number + 1, origin=f"retired: {reason}"[:200], task_modules={})
    file.write(gone, registry)
    return heads


def heads_of_net(tree: NetTree, plan: Plan) -> dict[str, BlobEntry]:
    """Return the net's task modules that serve as heads: of the plan's tasks and architecture.

    Raises
    ------
    NotFoundError
        If the net has none.
    """
    found = {
        task.name: tree.task_modules[task.name].blob
        for task in plan.tasks
        if task.name in tree.task_modules
        and tree.task_modules[task.name].architecture == plan.architecture
    }
    if not found:
        raise NotFoundError(
            "the net has no task module of the plan's architecture that could serve as a head; "
            f"the plan's tasks are {', '.join(task.name for task in plan.tasks)}"
        )
    return found


def founder_of(tree: NetTree, plan: Plan) -> str:
    """Return a category whose module is joined to one of the plan's tasks with no adapter.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    tasks = {task.name for task in plan.tasks}
    for edge in tree.edges:
        if edge.adapter is None and edge.task in tasks:
            return edge.category
    raise NotFoundError(
        "no category module of the net is joined with no adapter; name the one above which the "
        "rotation head is to be learned"
    )


def learn_rotation(
    store: BlobStore,
    plan: Plan,
    category_module: ModuleRef,
    images: Path,
    settings: RotationSettings,
) -> tuple[BlobEntry, float]:
    """Learn a rotation head of the plan's architecture above a category module of the net.

    Parameters
    ----------
    store
        Where the category module is, and where the head goes.
    plan
        Names the head's architecture.
    category_module
        f, which stays as it is; it may have an extractor of another architecture.
    images
        Folder of the operator's images, at any depth; no labels are needed.
    settings
        Steps and rates.

    Returns
    -------
    The head, and the share of turns that it tells on images that it was not learned from.

    Raises
    ------
    DataError
        If there are too few images, or one cannot be read.
    """
    blob = category_module.blob
    f = safetensors_io.load_frozen(
        build_category_module(category_module.architecture), store.local_path(blob.digest), blob
    )
    head = rotation_head(plan)
    initialise(head, settings.seed)
    images_NCSS = normalise(read_unlabelled(images, input_shape(plan.architecture)))
    told = learn_rotation_head(head, f, images_NCSS, settings)
    return put_tensors(store, head.state_dict()), told


def rotation_head(plan: Plan) -> nn.Sequential:
    """Build a rotation head above the plan's category modules."""
    return build_head(plan.architecture, TURNS)
