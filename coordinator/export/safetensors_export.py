"""A composed net read back from one safetensors file and its card; no store is needed."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.errors import SchemaError
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.card_file import card_path, read_card
from rootstock.coordinator.export.card import Card
from rootstock.coordinator.net.compose import blank


def load_composed(path: Path) -> ComposedNet:
    """Read an exported net back, every byte checked against its card.

    Raises
    ------
    NotFoundError
        If the file or its card is missing.
    SchemaError, IntegrityError
        If either is not what was exported.
    """
    card = Card.parse(read_card(path), what=f"card {card_path(path)}")
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
