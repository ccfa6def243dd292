"""Auxiliary heads, published beside the plan: they make labs compatible before any adapter.

A lab whose recipe is `compatible` trains its category module below these frozen heads as well as
its own task modules (Compatible Representations, incremental training), so that what it ships
fits the net's task modules as they are. Heads are blobs in the store and one document that names
them, `heads.json` in the state folder; a running service reads it whenever it has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.compatible.rotation import TURNS, RotationSettings, learn_rotation_head
from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.files import storage_errors, write_bytes
from rootstock.common.image_files.decoding import GreyRange
from rootstock.common.image_files.reading import OPTION, ImageReader
from rootstock.common.images import normalise, read_unlabelled
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    image_form,
    initialise,
)
from rootstock.common.nets.graph import ModuleRef, NetTree
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.net.compose import loaded
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
                stat = self._path.stat()
            except FileNotFoundError:
                return None
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._last = Heads.parse(self._path.read_bytes(), what=f"heads {self._path}")
                self._seen = seen
        return self._last

    def write(self, heads: Heads, registry: Registry) -> None:
        """Replace the document, and notify every lab."""
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
    """Publish heads instead of the present ones; labs that train from now on train below them.

    Raises ConflictError if just these are published.
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
    """Retire the published heads and return them; labs with recipe `compatible` wait for others.

    Raises NotFoundError if none are published.
    """
    heads = file.current()
    if heads is None:
        raise NotFoundError("no heads are published; there is nothing to retire")
    origin = f"retired: {reason}"[:200]
    file.write(Heads(number=heads.number + 1, origin=origin, task_modules={}), registry)
    return heads


def heads_of_net(tree: NetTree, plan: Plan) -> dict[str, BlobEntry]:
    """Return the net's task modules that serve as heads: of the plan's tasks and architecture.

    Raises NotFoundError if the net has none.
    """
    modules = {
        task.name: tree.task_modules[task.name].blob
        for task in plan.tasks
        if task.name in tree.task_modules
        and tree.task_modules[task.name].architecture == plan.architecture
    }
    if not modules:
        raise NotFoundError(
            "the net has no task module of the plan's architecture that could serve as a head; "
            f"the plan's tasks are {', '.join(task.name for task in plan.tasks)}"
        )
    return modules


def founder_of(tree: NetTree, plan: Plan) -> str:
    """Return a category whose module is joined to one of the plan's tasks with no adapter.

    Raises NotFoundError if there is none.
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
    note: Callable[[str], None],
    grey_range: GreyRange | None = None,
) -> tuple[BlobEntry, float]:
    """Learn a rotation head of the plan's architecture above a category module of the net.

    The category module stays as it is, and may have an extractor of another architecture. `images`
    is a folder, read at any depth; no labels are needed. Returns the stored head and its rotation
    accuracy, 0 to 1, on images that it was not learned from; `note` is called with what is doubtful
    about the images. Raises DataError if there are too few of them, or one cannot be read.
    """
    f = loaded(store, build_category_module(category_module.architecture), category_module.blob)
    head = initialise(build_head(plan.architecture, TURNS), settings.seed)
    form, reader = image_form(plan.architecture), ImageReader(grey_range, OPTION)
    images_NCSS = normalise(read_unlabelled(images, form, reader, note))
    accuracy = learn_rotation_head(head, f, images_NCSS, settings)
    return put_tensors(store, head.state_dict()), accuracy
