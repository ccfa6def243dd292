"""Writes a net's card for people, in Markdown."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.weights.card import NetCard, Parity


def text_path(weights: Path) -> Path:
    """Return where the text is: net.onnx → net.onnx.card.md."""
    return weights.with_name(f"{weights.name}.card.md")


def card_text(card: NetCard, file: str) -> str:
    """Return a card's text, for a reader who has never heard of Rootstock."""
    sections = [
        f"# {card.category}: {card.task.name}",
        _what(card),
        "## Use",
        f"```python\n{card.how_to_load}\n```",
        _inputs(card),
        "## How good it is",
        "The error of this join was not measured."
        if card.error is None
        else f"Error on private validation data of the lab that trained the category module: "
        f"{card.error:.1f} %.",
        _parity(card.parity, card.weights),
        "## What it is made of",
        _made_of(card, file),
    ]
    return "\n\n".join(sections) + "\n"


def _what(card: NetCard) -> str:
    _, height, width = card.input_shape
    answer = (
        f"whether an image shows the category *{card.category}*: one number (logit) an image"
        if card.task.kind == "binary-classification"
        else f"which pixels show the category *{card.category}*: one number (logit) for each of "
        f"the {height} × {width} pixels"
    )
    origin = ""
    if card.source is not None:
        origin = f" It was taken from net *{card.source.net}*, version {card.source.version}."
    return f"This net says {answer}. Above 0 it is; the probability is the logit's sigmoid.{origin}"


def _inputs(card: NetCard) -> str:
    channels, height, width = card.input_shape
    given = card.preprocessing
    colours = "grey" if channels == 1 else "RGB"
    return (
        f"`images_NCHW` is float32, any number of images × {channels} × {height} × {width}: of "
        f"each image the {given.crop} in {colours}, resized to {height} × {width} "
        f"({given.resize}), then (value / 255 − {given.mean:g}) / {given.std:g}."
    )


def _parity(parity: Parity | None, weights: str) -> str:
    if parity is None:
        return "The file holds the net's own weights, bit for bit."
    real = (
        ""
        if parity.real_difference is None
        else f", {parity.real_difference:.1e} on {parity.real_images} real ones"
    )
    return (
        f"Converted to {weights}, it was compared with the net's own modules: outputs differ by "
        f"{parity.random_difference:.1e} at most on {parity.random_images} random images{real} "
        f"(allowed: {parity.tolerance:g}, of 1 or of the output, if that is more)."
    )


def _made_of(card: NetCard, file: str) -> str:
    adapter = "none: the two modules fit as they are"
    if card.adapter is not None:
        spec = card.adapter
        adapter = (
            f"{spec.in_channels} to {spec.out_channels} channels, {spec.convs} convolution(s) of "
            f"{spec.kernel}×{spec.kernel}"
        )
    scaled = card.calibration
    began = card.start
    rows = [
        ("category module", _category_module(card.category_architecture)),
        ("adapter", adapter),
        ("task module", _architecture(card.task_architecture, "above")),
        ("calibration", f"output = {scaled.scale:g} · y + {scaled.bias:g}"),
        *(
            [("began with", f"published weights, {began.source}; licence: {began.licence}")]
            if began is not None
            else []
        ),
        (f"`{file}`", f"{card.blob.size} bytes, SHA-256 `{card.blob.digest}`"),
        *(
            (role.replace("_", " ") + ", SHA-256", f"`{digest}`")
            for role, digest in card.digests.items()
        ),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)


def _category_module(spec: ArchitectureSpec) -> str:
    own = _architecture(spec.below(), "up to")
    if spec.extractor is None:
        return own
    return f"{own}; its features have the shape of those of {_architecture(spec.above(), 'at')}"


def _architecture(spec: ArchitectureSpec, side: str) -> str:
    return f"{spec.name}, {side} layer `{spec.split}`"
