"""Exports a composed net: one file in a chosen format, and cards for programs and for people.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor, nn

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import IntegrityError
from rootstock.common.files import write_bytes
from rootstock.common.image_files.decoding import GreyRange
from rootstock.common.image_files.reading import OPTION, ImageReader
from rootstock.common.images import normalise, read_square
from rootstock.common.nets.architectures import image_form
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.nets.graph import NetTree
from rootstock.common.nets.spec import ImageForm, Shape
from rootstock.common.nets.tree_documents import tree_digest
from rootstock.common.protocol import MAX_PLAN_BYTES, Plan, PublishedStart
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.card import CardPreprocessing, NetCard, NetSource, Parity, card_path
from rootstock.common.weights.manifest import (
    MAX_MANIFEST_BYTES,
    BlobEntry,
    TeacherManifest,
    parse_manifest,
)
from rootstock.coordinator.export.card_text import card_text, text_path
from rootstock.coordinator.export.formats import Format, format_of
from rootstock.coordinator.export.tracing import Convert, Run, converted, opened, torch_program
from rootstock.coordinator.net.compose import compose, task_of

EXAMPLES = 2
"""Images that a net is traced with: torch takes 1 for a constant."""
RANDOM_IMAGES = 5
"""Not `EXAMPLES`, so that a written net is compared on another number of images."""
TOLERANCE = 1e-4


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
    grey_range: GreyRange | None = None,
) -> NetCard:
    """Write a composed net to a file, and its cards `.card.json` and `.card.md` beside it.

    The format is the one named, or that of `out`'s suffix; `source` is for the card. A format other
    than safetensors is compared with the composed net on random images and on the pictures
    `images`. Raises ConfigurationError if the format cannot hold a layer, IntegrityError if what
    was written does not answer as the composed net does; nothing is left behind then.
    """
    chosen = format_of(format_name, out)
    edge = tree.edge(category, task)
    net = compose(tree, store, category, task)
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
    form = image_form(module.architecture)
    blob, parity = _written(net, chosen, form.shape, out, _inputs(images, form, grey_range))
    card = NetCard(
        category=category,
        task=task_of(tree, task),
        source=source,
        category_architecture=module.architecture,
        task_architecture=head.architecture,
        input_shape=form.shape,
        preprocessing=CardPreprocessing.of(form.preprocessing),
        adapter=None if edge.adapter is None else edge.adapter.spec,
        calibration=edge.calibration,
        error=edge.error,
        start=_start(store, module.submission),
        digests=digests,
        weights=chosen.name,
        blob=blob,
        parity=parity,
        how_to_load=chosen.how_to_load.format(file=out.name),
    )
    write_bytes(card_path(out), card.model_dump_json(indent=2).encode() + b"\n")
    write_bytes(text_path(out), card_text(card, out.name).encode())
    return card


def _start(store: BlobStore, submission: str) -> PublishedStart | None:
    """Return the published weights that a category module began with; None if it did with none.

    An f of another architecture is drawn, a tailored one is its lab's own. None, too, where the
    store has not kept its manifest or the plan.
    """
    if not store.has(submission):
        return None
    manifest = parse_manifest(store.read_bytes(submission, MAX_MANIFEST_BYTES))
    if not isinstance(manifest, TeacherManifest) or not store.has(manifest.plan):
        return None
    if manifest.architecture.extractor is not None or manifest.recipe.name == "nettailor":
        return None
    return Plan.parse(store.read_bytes(manifest.plan, MAX_PLAN_BYTES), what="the plan").start


def _written(
    net: ComposedNet, chosen: Format, shape: Shape, out: Path, real_NCHW: Tensor | None
) -> tuple[BlobEntry, Parity | None]:
    convert: Convert
    open_: Callable[[bytes], Run]
    match chosen.name:
        case "safetensors":
            return safetensors_io.write(out, net.state_dict()), None
        case "torch":
            convert, open_ = torch_program, opened
        case "onnx":
            from rootstock.coordinator.export import onnx_export

            onnx_export.require_room(net)
            convert, open_ = onnx_export.convert, onnx_export.opened
        case unknown:
            assert_never(unknown)
    data = converted(net, torch.zeros(EXAMPLES, *shape), convert, format_name=chosen.name)
    parity = compared(net, open_(data), shape, real_NCHW)
    write_bytes(out, data)
    digest = hashlib.sha256(data).hexdigest()
    return BlobEntry(digest=digest, size=len(data), tensors={}), parity


def _inputs(images: Sequence[Path], form: ImageForm, grey_range: GreyRange | None) -> Tensor | None:
    if not images:
        return None
    reader = ImageReader(grey_range, OPTION)
    return normalise(torch.stack([read_square(path, form, reader) for path in images]))


def compared(net: nn.Module, run: Run, shape: Shape, real_NCHW: Tensor | None) -> Parity:
    """Compare a written net with the composed one on random images, and on real ones if given.

    Raises IntegrityError if outputs differ by more than the tolerance, or have another shape.
    """
    generator = torch.Generator().manual_seed(0)
    random_NCHW = torch.randn(RANDOM_IMAGES, *shape, generator=generator)
    return Parity(
        tolerance=TOLERANCE,
        random_images=RANDOM_IMAGES,
        random_difference=_difference(net, run, random_NCHW, "random"),
        real_images=0 if real_NCHW is None else len(real_NCHW),
        real_difference=None if real_NCHW is None else _difference(net, run, real_NCHW, "real"),
    )


@torch.no_grad()
def _difference(net: nn.Module, run: Run, images_NCHW: Tensor, kind: str) -> float:
    wanted: Tensor = net(images_NCHW)
    given = run(images_NCHW)
    if given.shape != wanted.shape:
        raise IntegrityError(
            f"the written net gives {list(given.shape)} for {kind} images, the composed one "
            f"{list(wanted.shape)}; export as safetensors"
        )
    difference = float(((given - wanted).abs() / wanted.abs().clamp(min=1)).max())
    if not difference <= TOLERANCE:
        raise IntegrityError(
            f"the written net's outputs for {kind} images differ from the composed one's by "
            f"{difference:.2g}, the tolerance is {TOLERANCE:g}; export as safetensors"
        )
    return difference
