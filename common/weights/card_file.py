"""Cards of exported nets as files: where they stand beside the weights, and how much is read."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.errors import NotFoundError, SchemaError
from rootstock.common.files import storage_errors

MAX_CARD_BYTES = 1 << 20


def card_path(weights: Path) -> Path:
    """Return where the card of an exported file stands: net.onnx → net.onnx.card.json.

    After the whole name, so that one net in several formats has a card for each.
    """
    return weights.with_name(f"{weights.name}.card.json")


def read_card(weights: Path) -> bytes:
    """Return what the card beside a file of weights holds, unparsed.

    Raises
    ------
    NotFoundError
        If there is none.
    SchemaError
        If it is larger than `MAX_CARD_BYTES`.
    StorageError
        If the disk cannot be read.
    """
    beside = card_path(weights)
    try:
        with storage_errors(beside), beside.open("rb") as file:
            data = file.read(MAX_CARD_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{beside}: there is no such file; an exported net is two files, copy both"
        ) from error
    if len(data) > MAX_CARD_BYTES:
        raise SchemaError(f"{beside}: has more than {MAX_CARD_BYTES} bytes; it is no card")
    return data
