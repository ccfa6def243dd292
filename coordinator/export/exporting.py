"""A composition taken away: one file in a chosen format, and cards for programs and for people.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.files import write_bytes
from rootstock.common.images.decode import centre_square, normalise, pixels, read_picture
from rootstock.common.nets.architectures import input_shape
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.nets.graph import NetTree
from rootstock.common.nets.spec import Shape
from rootstock.common.nets.tree_documents import tree_digest
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.card import NetCard, NetSource, Parity, card_path
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.export.card_text import card_text, text_path
from rootstock.coordinator.export.formats import Format, format_of
from rootstock.coordinator.export.layers import Convert, converted
from rootstock.coordinator.export.parity import Run, compared
from rootstock.coordinator.net.compose import compose, task_of

EXAMPLES = 2
"""Images that a net is traced with: torch takes 1 for a constant."""


def export_composed(
    tree: NetTree,
    store: BlobStore,
    category: str,
    task: str,
    out: Path,
    *,
    format_name: str | None = None,
    source: NetSource | None = None,
    images: Sequence[Path] = (),
) -> NetCard:
    """Write a composed net to a file, and its cards beside it.

    Raises NotFoundError if category and task are not joined; says which are; ConfigurationError if
    the file's suffix is not the format's, or the format cannot hold a layer; names it;
    MissingExtraError if the format needs an extra that is not installed; UnreadableError if one of
    the images is none; IntegrityError if what was written does not answer as the composed net does;
    nothing is left behind.

    Parameters
    ----------
    tree, store
        The net and where its blobs are.
    category, task
        Which two modules; the adapter that joins them and its calibration come along.
    out
        The file; the cards' names are its name and `.card.json`, `.card.md`.
    format_name
        One of `FORMATS`; None is the one of `out`'s suffix.
    source
        Which net's version it is taken from, for the card.
    images
        Pictures on which a format other than safetensors is held against the composed net, beside
        random ones.
    """
    chosen = format_of(format_name, out)
    digests = _source_digests(tree, category, task)
    net = compose(tree, store, category, task)
    module, edge = tree.category_modules[category], tree.edge(category, task)
    shape = input_shape(module.architecture)
    blob, parity = _written(net, chosen, shape, out, _inputs(images, shape))
    card = NetCard(
        category=category,
        task=task_of(tree, task),
        source=source,
        category_architecture=module.architecture,
        task_architecture=tree.task_modules[task].architecture,
        input_shape=shape,
        adapter=None if edge.adapter is None else edge.adapter.spec,
        calibration=edge.calibration,
        error=edge.error,
        digests=digests,
        weights=chosen.name,
        blob=blob,
        parity=parity,
        how_to_load=chosen.how_to_load.format(file=out.name),
    )
    write_bytes(card_path(out), card.model_dump_json(indent=2).encode() + b"\n")
    write_bytes(text_path(out), card_text(card, out.name).encode())
    return card


def _source_digests(tree: NetTree, category: str, task: str) -> dict[str, str]:
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


def _written(
    net: ComposedNet, chosen: Format, shape: Shape, out: Path, real_NCHW: Tensor | None
) -> tuple[BlobEntry, Parity | None]:
    if chosen.name == "safetensors":
        return safetensors_io.write(out, net.state_dict()), None
    convert, opened = _converter(net, chosen)
    data = converted(net, torch.zeros(EXAMPLES, *shape), convert, format_name=chosen.name)
    parity = compared(net, opened(data), shape, real_NCHW)
    write_bytes(out, data)
    digest = hashlib.sha256(data).hexdigest()
    return BlobEntry(digest=digest, size=len(data), tensors={}), parity


def _converter(net: ComposedNet, chosen: Format) -> tuple[Convert, Callable[[bytes], Run]]:
    """Return what writes a format, and what runs it."""
    if chosen.name == "onnx":
        from rootstock.coordinator.export import onnx_export

        onnx_export.require_room(net)
        return onnx_export.convert, onnx_export.opened
    from rootstock.coordinator.export import torch_export

    return torch_export.convert, torch_export.opened


def _inputs(images: Sequence[Path], shape: Shape) -> Tensor | None:
    if not images:
        return None
    squares = (centre_square(read_picture(path, "RGB")) for path in images)
    return normalise(torch.stack([pixels(square, shape) for square in squares]))
