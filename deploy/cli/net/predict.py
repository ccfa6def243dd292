"""``rootstock net predict``: a composition, or all of a task's, on pictures.

One JSON object a picture, a line each: the one command whose standard output is not one object.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.common.errors import ConfigurationError, DataError
from rootstock.deploy.cli.net.options import Config, Version, number_of, open_net

if TYPE_CHECKING:
    from rootstock.coordinator.export.predict import Classified, Predictor, Segmented


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
    version: Version = None,
) -> None:
    """Ask the net about pictures: is it this category, or which of all. Prints JSON lines.

    A picture is fed as labs feed theirs: its centre square, resized and normalised. What is not an
    image gets a line with the error, and the exit code is then 4; the others are done all the same.
    """
    _, opened = open_net(config, "predict")
    from rootstock.coordinator.export.predict import Predictor, Segmented, Unreadable

    with opened as view:
        predictor = Predictor(view.tree(number_of(view, version)), view.store, task, category)
        _require_map(predictor, overlay)
        names = _Names(overlay)
        unreadable = 0
        for answer in predictor.answers(images):
            row: dict[str, Any] = {"image": str(answer.path), "task": task}
            if isinstance(answer, Unreadable):
                unreadable += 1
                row |= {"error": answer.reason}
            elif isinstance(answer, Segmented):
                row |= _segmented(answer, names, all_asked=category is None)
            else:
                row |= _classified(answer, all_asked=category is None)
            typer.echo(json.dumps(row, ensure_ascii=False, allow_nan=False))
    if unreadable:
        raise DataError(
            f"{unreadable} of {len(images)} files cannot be read as images; their lines say why"
        )


def _classified(answer: Classified, *, all_asked: bool) -> dict[str, Any]:
    ranking = [asdict(score) for score in answer.ranking]
    return {**ranking[0], **({"ranking": ranking} if all_asked else {})}


def _segmented(answer: Segmented, names: _Names, *, all_asked: bool) -> dict[str, Any]:
    shares = answer.shares()
    ranked = sorted(shares, key=lambda name: (-shares[name], name))
    row: dict[str, Any] = {"category": ranked[0], "share": shares[ranked[0]]}
    if all_asked:
        row["ranking"] = [{"category": name, "share": shares[name]} for name in ranked]
    path = names.of(answer.path)
    if path is not None:
        from rootstock.coordinator.pictures.overlay import draw_overlay

        draw_overlay(answer.picture, answer.labels_HW.numpy(), path)
        row["overlay"] = str(path)
    return row


def _require_map(predictor: Predictor, overlay: Path | None) -> None:
    if overlay is not None and not predictor.segments:
        raise ConfigurationError(
            f"--overlay {overlay}: task '{predictor.task.name}' gives one number a picture, "
            "no map; leave --overlay out, or name a task of kind binary-segmentation"
        )


class _Names:
    """Names of overlays, none twice in one run, and none that of a picture itself."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._taken: dict[str, int] = {}

    def of(self, picture: Path) -> Path | None:
        if self._folder is None:
            return None
        count = self._taken[picture.stem] = self._taken.get(picture.stem, 0) + 1
        suffix = "" if count == 1 else f"-{count}"
        return self._folder / f"{picture.stem}{suffix}.overlay.png"
