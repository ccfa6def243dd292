"""Reads an exported net back from one safetensors file and its card; no store is needed."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from rootstock.common.errors import SchemaError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import build_category_module, build_task_module
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.card import NetCard, read_card


def load_composed(path: str | PathLike[str]) -> ComposedNet:
    """Read an exported net, frozen and in evaluation mode, every byte checked against its card.

    Raises NotFoundError if the file or its card is missing, SchemaError or IntegrityError if
    either is not what was exported.
    """
    path = Path(path)
    card = read_card(path, NetCard)
    if card.weights != "safetensors":
        raise SchemaError(
            f"{path}: is of format {card.weights}, not safetensors; load it so: {card.how_to_load}"
        )
    net = ComposedNet(
        build_category_module(card.category_architecture),
        None if card.adapter is None else Adapter(card.adapter),
        build_task_module(card.task_architecture, card.task),
        card.calibration,
    )
    return safetensors_io.load_frozen(net, path, card.blob)
