"""``rootstock net predict``: a composition, or all of a task's, on pictures.

One JSON object a picture, a line each: the one command whose standard output is not one object.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.common.errors import ConfigurationError, DataError
from rootstock.common.image_files.findings import printable
from rootstock.deploy.cli.access import number_of, open_net
from rootstock.deploy.cli.options import Config, GreyRange, Version
from rootstock.deploy.output import note

if TYPE_CHECKING:
    from rootstock.coordinator.export.predict import Classified, Segmented


def predict(
    config: Config,
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    task: Annotated[str, typer.Option(help="Task module to use.")],
    category: Annotated[
        str | None, typer.Option(help="Category to ask; default: all that are joined to the task.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Folder for pictures of a segmentation: NAME.overlay.png.")
    ] = None,
    grey_range: GreyRange = None,
    version: Version = None,
) -> None:
    """Ask the net about pictures: is it this category, or which of all. Prints JSON lines.

    A picture is fed as labs feed theirs: its centre square, resized and normalised. What is not an
    image gets a line with the error, and the exit code is then 4; the others are done all the same.
    """
    from rootstock.coordinator.export.predict import Predictor, Segmented, Unreadable

    _, opened = open_net(config)
    with opened as net:
        tree = net.tree(number_of(net, version))
        predictor = Predictor(tree, net.store, task, category, grey_range)
        if overlay is not None and not predictor.segments:
            raise ConfigurationError(
                f"--overlay {overlay}: task '{predictor.task.name}' gives one number a picture, "
                "no map; leave --overlay out, or name a task of kind binary-segmentation"
            )
        overlays: Counter[str] = Counter()
        unreadable = 0
        for answer in predictor.answers(images):
            row: dict[str, Any] = {"image": printable(answer.path), "task": task}
            if isinstance(answer, Unreadable):
                unreadable += 1
                row |= {"error": answer.reason}
            elif isinstance(answer, Segmented):
                row |= _segmented(answer, all_asked=category is None)
                if overlay is not None:
                    row["overlay"] = _drawn(answer, overlay, overlays)
            else:
                row |= _classified(answer, all_asked=category is None)
            typer.echo(json.dumps(row, ensure_ascii=False, allow_nan=False))
    doubts = [finding.text for finding in predictor.reader.findings() if finding.doubtful]
    for doubt in (*doubts, predictor.reader.contrast_error()):
        if doubt is not None:
            note(doubt)
    if unreadable:
        raise DataError(
            f"{unreadable} of {len(images)} files cannot be read as images; their lines say why"
        )


def _classified(answer: Classified, *, all_asked: bool) -> dict[str, Any]:
    ranking = [asdict(score) for score in answer.ranking]
    return {**ranking[0], **({"ranking": ranking} if all_asked else {})}


def _segmented(answer: Segmented, *, all_asked: bool) -> dict[str, Any]:
    shares = answer.shares()
    ranked = sorted(shares, key=lambda name: (-shares[name], name))
    ranking = [{"category": name, "share": shares[name]} for name in ranked]
    return {**ranking[0], **({"ranking": ranking} if all_asked else {})}


def _drawn(answer: Segmented, folder: Path, overlays: Counter[str]) -> str:
    """Draw an overlay; none has a name twice in one run, nor that of a picture itself."""
    from rootstock.coordinator.pictures.overlay import draw_overlay

    stem = answer.path.stem
    overlays[stem] += 1
    suffix = "" if overlays[stem] == 1 else f"-{overlays[stem]}"
    path = folder / f"{stem}{suffix}.overlay.png"
    draw_overlay(answer.picture, answer.labels_HW.numpy(), path)
    return str(path)
