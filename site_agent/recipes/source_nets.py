"""Category modules that a lab may transfer from: files that were given to it, its older teachers.

The wire does not list what the net holds; `rootstock net export --out x.safetensors` at the
coordinator gives a file and its card, and so does `rootstock site adapt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import build_category_module, feature_shape, input_shape
from rootstock.common.nets.spec import ArchitectureSpec, require_fit
from rootstock.common.weights import safetensors_io, schema
from rootstock.common.weights.card import ModuleCard, read_card

_PREFIX = "category_module."
"""Of f's tensors in an exported net; a file of f alone has none."""


@dataclass(frozen=True)
class SourceNet:
    """A category module of another category, domain or time.

    Attributes
    ----------
    name
        How tables name it.
    architecture
        Of the net that it is the bottom of.
    category_module
        f, frozen and in evaluation mode.
    """

    name: str
    architecture: ArchitectureSpec
    category_module: nn.Sequential


def from_file(path: Path, device: torch.device) -> SourceNet:
    """Read the category module of an exported net, or of an adapted one.

    Raises
    ------
    NotFoundError
        If the file or its card, which is named after it, is missing.
    SchemaError, IntegrityError
        If either is not what it says, or the file is of another format than safetensors.
    """
    card = read_card(path, ModuleCard)
    if card.weights != "safetensors":
        raise SchemaError(
            f"{path}: is of format {card.weights}, which holds no category module to take out; "
            "export it as NAME.safetensors"
        )
    named = {
        name.removeprefix(_PREFIX): entry
        for name, entry in card.blob.tensors.items()
        if name.startswith(_PREFIX)
    }
    own = named or card.blob.tensors
    f = build_category_module(card.category_architecture)
    schema.require_fit(f, card.blob.model_copy(update={"tensors": own}), what=str(path))
    prefix = _PREFIX if named else ""
    # All of it is read, as the digest is of the whole file.
    weights = safetensors_io.read(path, card.blob)
    f.load_state_dict({name: weights[prefix + name] for name in own})
    return SourceNet(
        f"{card.category} ({path.stem})",
        card.category_architecture,
        f.to(device).eval().requires_grad_(False),
    )


def require_source_fits(source: SourceNet, own: ArchitectureSpec) -> None:
    """Hold a source against the lab's images and its task modules.

    Raises
    ------
    SchemaError
        If it takes other images, or gives features of another shape than g takes.
    """
    remedy = f"leave it out; the lab's own net is {own.described()}"
    takes, images = input_shape(source.architecture), input_shape(own)
    if takes != images:
        raise SchemaError(
            f"source {source.name}: takes images of {_by(takes)}, the lab's are {_by(images)}; "
            f"{remedy}"
        )
    try:
        require_fit("no adapter", feature_shape(source.architecture), feature_shape(own), None)
    except SchemaError as error:
        raise SchemaError(
            f"source {source.name}: does not fit below the lab's g ({error}); {remedy}"
        ) from error


def _by(shape: tuple[int, int, int]) -> str:
    return "×".join(map(str, shape))
