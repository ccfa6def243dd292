"""A composed net read back from one safetensors file and its card; no store is needed."""

from __future__ import annotations

from pathlib import Path

from common.errors import NotFoundError, SchemaError
from common.files import storage_errors
from common.nets.composed import ComposedNet
from common.weights import safetensors_io
from coordinator.export.card import Card, card_path
from coordinator.export.composing import blank

MAX_CARD_BYTES = 1 << 20


def load_composed(path: Path) -> ComposedNet:
    """Read an exported net back, every byte checked against its card.

    Raises
    ------
    NotFoundError
        If the file or its card is missing.
    SchemaError, IntegrityError
        If either is not what was exported.
    """
    beside = card_path(path)
    try:
        with storage_errors(beside), beside.open("rb") as file:
            data = file.read(MAX_CARD_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{beside}: there is no such file; an exported net is two files, copy both"
        ) from error
    if len(data) > MAX_CARD_BYTES:
        raise SchemaError(f"{beside}: has more than {MAX_CARD_BYTES} bytes; it is no card")
    card = Card.parse(data, what=f"card {beside}")
    if card.weights != "safetensors":
        raise SchemaError(
            f"{path}: is of format {card.weights}, not safetensors; load it so: {card.how_to_load}"
        )
    net = blank(
        card.category_architecture,
        card.task_architecture,
        card.task,
        card.adapter,
        card.calibration,
    )
    safetensors_io.load_module(net, path, card.blob)
    return net
