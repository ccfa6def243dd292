"""Answers about pictures: is it this category, which category is it, which pixels are it.

N images, K categories, C channels, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import DataError, NotFoundError
from rootstock.common.image_files.decoding import GreyRange
from rootstock.common.image_files.reading import OPTION, ImageReader
from rootstock.common.images import central_part, centre_square, normalise, pixels
from rootstock.common.nets.architectures import image_form
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.nets.graph import NetTree
from rootstock.common.nets.spec import ImageForm
from rootstock.coordinator.net.compose import compose, task_module_of, task_of

BATCH = 32
"""Pictures at once; a longer list takes no more memory."""

KEPT_BYTES = 1 << 30
"""Category modules are kept from batch to batch up to this size in all."""

SHOWN_SIDE = 1024
"""Pixels of a segmented picture's side that are kept for its overlay, at most."""


@dataclass(frozen=True)
class Score:
    """One category's answer to a picture; `probability` is σ(logit), calibrated."""

    category: str
    logit: float
    probability: float


@dataclass(frozen=True)
class Classified:
    """Scores of every category asked, the most probable first."""

    path: Path
    ranking: tuple[Score, ...]


@dataclass(frozen=True)
class Segmented:
    """Which pixels of a picture are which category, of the categories asked."""

    path: Path
    categories: tuple[str, ...]
    labels_HW: Tensor
    """int16, at the net's input size: k for `categories[k − 1]`, 0 for the rest. Where several
    claim a pixel, it is the most probable's."""
    picture: Image.Image
    """The square that the net saw, in its own resolution, `SHOWN_SIDE` at most."""

    def shares(self) -> dict[str, float]:
        """Return each category's share of the pixels, 0 to 1."""
        counts = torch.bincount(self.labels_HW.flatten().long(), minlength=len(self.categories) + 1)
        total = self.labels_HW.numel()
        return {name: int(counts[k]) / total for k, name in enumerate(self.categories, start=1)}


@dataclass(frozen=True)
class Unreadable:
    """A file that is no image, and why."""

    path: Path
    reason: str


Answer = Classified | Segmented | Unreadable


class Predictor:
    """The composed nets of one task, of one category or of all that are joined to it."""

    def __init__(
        self,
        tree: NetTree,
        store: BlobStore,
        task: str,
        category: str | None,
        grey_range: GreyRange | None = None,
    ) -> None:
        self.reader = ImageReader(grey_range, OPTION)
        self.task = task_of(tree, task)
        if category is None:
            self.categories = tuple(edge.category for edge in tree.edges if edge.task == task)
        else:
            self.categories = (tree.edge(category, task).category,)
        if not self.categories:
            raise NotFoundError(
                f"no category is joined to task '{task}'; merge a teacher net first"
            )
        self._tree, self._store = tree, store
        self._forms = {
            name: image_form(tree.category_modules[name].architecture) for name in self.categories
        }
        self._distinct = set(self._forms.values())
        self._task_module = task_module_of(tree, store, task)
        self._nets: dict[str, ComposedNet] = {}
        sizes = [tree.category_modules[name].blob.size for name in self.categories]
        self._keeps = sum(sizes) <= KEPT_BYTES

    @property
    def segments(self) -> bool:
        """Whether the task's answer is a map."""
        return self.task.kind == "binary-segmentation"

    def answers(self, paths: Sequence[Path]) -> Iterator[Answer]:
        """Yield an answer a path, in order; what cannot be read keeps none of the others back."""
        for start in range(0, len(paths), BATCH):
            yield from self._batch(paths[start : start + BATCH])

    def _batch(self, paths: Sequence[Path]) -> Iterator[Answer]:
        read: list[_Picture | Unreadable] = []
        for path in paths:
            try:
                read.append(self._read(path))
            except DataError as error:
                read.append(Unreadable(path, str(error)))
        pictures = [each for each in read if isinstance(each, _Picture)]
        ask = self._segment if self.segments else self._classify
        answers = iter(ask(pictures) if pictures else ())
        for each in read:
            yield each if isinstance(each, Unreadable) else next(answers)

    def _read(self, path: Path) -> _Picture:
        """Keep of a picture what is needed, not its tens of millions of pixels."""
        square = centre_square(self.reader.read(path, str(path)))
        inputs = {form: pixels(square, form) for form in self._distinct}
        if self.segments:  # what the labels are of
            square = central_part(square, self._forms[self.categories[0]].preprocessing.crop)
        if square.width > SHOWN_SIDE:
            square = square.resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BILINEAR)
        return _Picture(path, inputs, square)

    def _classify(self, pictures: list[_Picture]) -> Iterator[Answer]:
        logits = {name: y.flatten() for name, y in self._outputs(pictures)}
        for n, picture in enumerate(pictures):
            yield Classified(picture.path, _ranked({name: y_N[n] for name, y_N in logits.items()}))

    def _segment(self, pictures: list[_Picture]) -> Iterator[Answer]:
        size_HW = self._forms[self.categories[0]].shape[1:]
        best_NHW = torch.zeros(len(pictures), *size_HW)  # logit 0: category and rest alike
        labels_NHW = torch.zeros(best_NHW.shape, dtype=torch.int16)
        for k, (_, y_NCHW) in enumerate(self._outputs(pictures), start=1):
            if y_NCHW.shape[2:] != size_HW:
                y_NCHW = F.interpolate(y_NCHW, size_HW, mode="bilinear")
            y_NHW = y_NCHW[:, 0]
            labels_NHW[y_NHW > best_NHW] = k
            best_NHW = torch.maximum(best_NHW, y_NHW)
        for picture, labels_HW in zip(pictures, labels_NHW, strict=True):
            yield Segmented(picture.path, self.categories, labels_HW, picture.shown)

    @torch.no_grad()
    def _outputs(self, pictures: list[_Picture]) -> Iterator[tuple[str, Tensor]]:
        inputs = {
            form: normalise(torch.stack([picture.inputs[form] for picture in pictures]))
            for form in self._distinct
        }
        for name in self.categories:
            net = self._nets.get(name)
            if net is None:
                net = compose(self._tree, self._store, name, self.task.name, self._task_module)
                if self._keeps:
                    self._nets[name] = net
            yield name, net(inputs[self._forms[name]])


@dataclass(frozen=True)
class _Picture:
    """A picture as nets take it, by their input shape, and as its overlay shows it."""

    path: Path
    inputs: dict[ImageForm, Tensor]
    shown: Image.Image


def _ranked(logits: Mapping[str, Tensor]) -> tuple[Score, ...]:
    scores = [Score(name, float(y), float(torch.sigmoid(y))) for name, y in logits.items()]
    # By the logit: far from 0 probabilities are all alike in float32.
    return tuple(sorted(scores, key=lambda score: -score.logit))
