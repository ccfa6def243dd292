"""Cards: the JSON beside a file of weights that says what it is and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError

from rootstock.common.documents import Document, first_problem
from rootstock.common.errors import NotFoundError, SchemaError
from rootstock.common.files import read_capped
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import (
    STANDARD_MEAN,
    STANDARD_STD,
    AdapterSpec,
    ArchitectureSpec,
    Name,
    Preprocessing,
    Shape,
    TaskSpec,
)
from rootstock.common.protocol import PublishedStart
from rootstock.common.weights.manifest import BlobEntry, Digest

MAX_CARD_BYTES = 1 << 20

FormatName = Literal["safetensors", "torch", "onnx"]


class ModuleCard(Document, extra="ignore"):
    """The part of every card that is about the category module in its file, whoever wrote it.

    Read as this document, the card of an exported net and that of an adapted module are alike.
    """

    category: Name
    category_architecture: ArchitectureSpec
    weights: FormatName = "safetensors"
    blob: BlobEntry
    """The file. A whole net's tensors as safetensors are `category_module.*`, `adapter.*`,
    `task_module.*`, `calibration.*`; other formats list none."""


class NetSource(Document):
    """The net version that a composed net was taken from."""

    net: Name
    version: int = Field(ge=0)


class CardPreprocessing(Document):
    """The steps from an image to the net's input: as at every lab.

    What the net's backbone wants beyond them is the net's first layer; see `category_architecture`.
    """

    crop: str = "centre square"
    resize: str = "bilinear"
    mean: float = STANDARD_MEAN
    std: float = STANDARD_STD
    """(value / 255 − mean) / std."""

    @classmethod
    def of(cls, given: Preprocessing) -> Self:
        """Return the steps that an architecture asks for."""
        part = "centre square"
        if given.crop < 1:
            part += f", the middle {100 * given.crop:g} % of its side,"
        return cls(crop=part, resize=given.interpolation)


class Parity(Document):
    """The largest differences of outputs, each relative to 1 or to the output, if that is more."""

    tolerance: float
    random_images: int = Field(ge=1)
    random_difference: float = Field(ge=0)
    real_images: int = Field(ge=0)
    real_difference: float | None = Field(default=None, ge=0)
    """None where no images were given."""


class NetCard(ModuleCard, extra="forbid"):
    """The card of an exported net: what reading its weights needs, and what they are made of."""

    format: int = Field(default=1, ge=1, le=1)
    task: TaskSpec
    source: NetSource | None = None
    task_architecture: ArchitectureSpec
    input_shape: Shape
    """(C, H, W) of an image."""
    preprocessing: CardPreprocessing = CardPreprocessing()
    adapter: AdapterSpec | None
    """None joins the modules directly."""
    calibration: Calibration = Calibration()
    """The net gives scale · y + bias. It is in the file, too, unless it is 1 · y + 0."""
    error: float | None
    """Percent on the owning lab's private validation data, calibrated."""
    start: PublishedStart | None = Field(default=None, exclude_if=lambda start: start is None)
    """The published weights that the category module's training began with, if it did."""
    digests: dict[str, Digest]
    """SHA-256 of the net and of the blobs that went in, by role."""
    parity: Parity | None = None
    """How the file compares with the composed net; None for safetensors, which are the same
    bits."""
    how_to_load: str


C = TypeVar("C", bound=ModuleCard)


def card_path(weights: Path) -> Path:
    """Return the path of the card of a file of weights: net.onnx → net.onnx.card.json.

    The whole name is kept, so that one net in several formats has a card for each.
    """
    return weights.with_name(f"{weights.name}.card.json")


def read_card(weights: Path, kind: type[C]) -> C:
    """Read the card beside a file of weights as a document."""
    beside = card_path(weights)
    try:
        data = read_capped(beside, MAX_CARD_BYTES, what="card")
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{beside}: there is no such file; an exported net is two files, copy both"
        ) from error
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise SchemaError(
            f"{beside}: is no card of an exported or adapted net: {first_problem(error)}; export "
            "it again"
        ) from error
