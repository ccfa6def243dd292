"""Specifications of nets: what a manifest, a plan and a tree say about modules. No tensors."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from rootstock.common.documents import Document
from rootstock.common.errors import SchemaError

STANDARD_MEAN = 0.5
STANDARD_STD = 0.25
"""The same everywhere, whatever the images: x ← (x/255 − mean) / std. Category modules that are fed
alike can be joined to one task module."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError(
            "names have 1 to 63 of the characters a-z, 0-9, '.', '_' and '-', and begin with a "
            "letter or a digit"
        )
    return text


Name = Annotated[str, AfterValidator(_name)]
"""Names of sites, categories, tasks, nets: safe in a path, a tag and a URL."""

_LIBRARIES = ("torchvision:", "timm:")


def _architecture(text: str) -> str:
    own = next((text.removeprefix(p) for p in _LIBRARIES if text.startswith(p)), text)
    _name(own)
    return text


ArchitectureName = Annotated[str, AfterValidator(_architecture)]
"""One of our architectures, or "torchvision:NAME" or "timm:NAME"."""

Setting = bool | int | float | str

Shape = tuple[int, int, int]
"""(C, H, W)."""


TaskKind = Literal["binary-classification", "binary-segmentation"]
"""One logit says category or rest: for an image, or for every pixel of it."""


class Preprocessing(Document):
    """From an image to what a net was trained on: as its published weights, or its plan, ask.

    Images are read alike at every lab: a central square, resized, in `STANDARD_MEAN` and
    `STANDARD_STD`'s units (value / 255 − 0.5) / 0.25. What a net wants beyond that is its first
    layer's to do (`common.nets.units`), so that images, dreams and exports have one unit.
    """

    crop: float = Field(default=1.0, ge=0.1, le=1.0)
    """Share of the central square's side that is used."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    colours: Literal["rgb", "bgr"] = "rgb"
    """The order of channels that the net takes."""
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(STANDARD_MEAN,), min_length=1, max_length=16
    )
    std: tuple[Annotated[float, Field(ge=0.01, le=1)], ...] = Field(
        default=(STANDARD_STD,), min_length=1, max_length=16
    )
    """(value / 255 − mean) / std: one number, or one for each of the net's channels, in its order
    of them."""


class ImageForm(NamedTuple):
    """How an image has to be cut and resized for a net."""

    shape: Shape
    preprocessing: Preprocessing = Preprocessing()


class ArchitectureSpec(Document):
    """A generic architecture and where it splits into category module f and task module g.

    A net may have another extractor than its architecture's: f is then that of `extractor`, ended
    with a 1×1 convolution where its features have another width, and g stays this architecture's
    (Compatible Representations, section 5.2). Images and the size of the feature map are the same.
    """

    name: ArchitectureName
    settings: dict[str, Setting] = Field(default_factory=dict, max_length=32)
    split: Name
    preprocessing: Preprocessing = Field(
        default=Preprocessing(), exclude_if=lambda given: given == Preprocessing()
    )
    """Not written where it is the default: documents from before keep their digests."""
    extractor: ArchitectureSpec | None = Field(default=None, exclude_if=lambda other: other is None)
    """What f is, if it is not this architecture's. Not written where it is: documents from before
    keep their digests."""

    def above(self) -> ArchitectureSpec:
        """Return the architecture that g belongs to, with an f of its own."""
        return self if self.extractor is None else self.model_copy(update={"extractor": None})

    def below(self) -> ArchitectureSpec:
        """Return the architecture whose layers f is made of."""
        return self if self.extractor is None else self.extractor

    def described(self) -> str:
        """Return how messages name it: "'small-vgg', split 'pool2'", and the extractor's."""
        own = f"'{self.name}', split '{self.split}'"
        return own if self.extractor is None else f"{own}, extractor {self.extractor.described()}"


class TaskSpec(Document):
    """One task of the universal net."""

    name: Name
    kind: TaskKind = "binary-classification"


class AdapterSpec(Document):
    """The structure of an adapter h: reorder, rescale, n × (conv + ReLU) (paper, section 4).

    The permutation and the scale β are buffers in the adapter's weights. Where what g_S takes may
    be negative, as after a linear bottleneck, no ReLU follows the last convolution.
    """

    in_channels: int = Field(ge=1, le=8192)
    out_channels: int = Field(ge=1, le=8192)
    convs: int = Field(default=1, ge=1, le=8)
    kernel: Literal[1, 3] = 1
    signed: bool = Field(default=False, exclude_if=lambda signed: not signed)
    """Whether h(x) may be negative. Not written where it may not: documents from before keep their
    digests."""


def require_fit(what: str, given: Shape, wanted: Shape, spec: AdapterSpec | None) -> None:
    """Refuse features that an adapter, or none, does not turn into what g_S takes.

    `what` is how errors name the join ("candidate 'refined'").
    """
    channels = (given[0], wanted[0]) if spec is None else (spec.in_channels, spec.out_channels)
    fits = channels == (given[0], wanted[0]) and given[1:] == wanted[1:]
    if not fits or (spec is None and given[0] != wanted[0]):
        raise SchemaError(
            f"{what} takes {channels[0]} channels to {channels[1]}; f gives "
            f"{'×'.join(map(str, given))}, g_S takes {'×'.join(map(str, wanted))}"
        )
