"""Specifications of nets: what a manifest, a plan and a tree say about modules. No tensors."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rootstock.common.documents import Document
from rootstock.common.errors import SchemaError

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

Setting = bool | int | float | str

Shape = tuple[int, int, int]
"""(C, H, W)."""

TaskKind = Literal["binary-classification", "binary-segmentation"]
"""One logit says category or rest: for an image, or for every pixel of it."""


class ArchitectureSpec(Document):
    """A generic architecture and where it splits into category module f and task module g.

    A net may have another extractor than its architecture's: f is then that of `extractor`, ended
    with a 1×1 convolution where its features have another width, and g stays this architecture's
    (Compatible Representations, section 5.2). Images and the size of the feature map are the same.
    """

    name: Name
    settings: dict[str, Setting] = Field(default_factory=dict, max_length=32)
    split: Name
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

    The permutation and the scale β are buffers in the adapter's weights.
    """

    in_channels: int = Field(ge=1, le=8192)
    out_channels: int = Field(ge=1, le=8192)
    convs: int = Field(default=1, ge=1, le=8)
    kernel: Literal[1, 3] = 1


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
