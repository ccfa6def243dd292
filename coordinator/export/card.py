"""The card beside an exported net: what it is, where it comes from, how to load it."""

from __future__ import annotations

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.images.decode import MEAN, STD
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.graph import NetTree
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, Name, TaskSpec
from rootstock.common.nets.tree_documents import tree_digest
from rootstock.common.weights.manifest import BlobEntry, Digest
from rootstock.coordinator.export.formats import FormatName
from rootstock.coordinator.export.parity import Parity


class Source(Document):
    """Where a composed net was taken from."""

    net: Name
    version: int = Field(ge=0)


class Preprocessing(Document):
    """How an image becomes the net's input: as at every lab."""

    crop: str = "centre square"
    resize: str = "bilinear"
    mean: float = MEAN
    std: float = STD
    """(value / 255 − mean) / std."""


class Card(Document):
    """Everything that reading the weights needs, and what they were made of."""

    format: int = Field(default=1, ge=1, le=1)
    category: Name
    task: TaskSpec
    source: Source | None = None
    category_architecture: ArchitectureSpec
    task_architecture: ArchitectureSpec
    input_shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    preprocessing: Preprocessing = Preprocessing()
    adapter: AdapterSpec | None
    """None joins the modules directly."""
    calibration: Calibration = Calibration()
    """Of the output: the net gives scale · y + bias. In the file, too, unless it is 1 · y + 0."""
    error: float | None
    """Percent on the owning lab's private validation data, calibrated."""
    digests: dict[str, Digest]
    """Of the net and of the blobs that went in, by role."""
    weights: FormatName = "safetensors"
    """The exported file's format."""
    blob: BlobEntry
    """The exported file; as safetensors its tensors are `category_module.*`, `adapter.*`,
    `task_module.*`, `calibration.*`, otherwise none is listed."""
    parity: Parity | None = None
    """How it was held against the composed net; None for safetensors, which are the same bits."""
    how_to_load: str


def source_digests(tree: NetTree, category: str, task: str) -> dict[str, str]:
    """Return by role the digests that a composed net is made of.

    Raises
    ------
    NotFoundError
        If category and task are not joined.
    """
    edge = tree.edge(category, task)
    module, head = tree.category_modules[category], tree.task_modules[task]
    digests = {
        "net": tree_digest(tree),
        "category_module": module.blob.digest,
        "category_submission": module.submission,
        "task_module": head.blob.digest,
        "task_submission": head.submission,
    }
    if edge.adapter is not None:
        digests["adapter"] = edge.adapter.blob.digest
    return digests
