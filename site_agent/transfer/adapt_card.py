"""An adapted category module as it is kept: weights, and a card that says what it came from.

::

    <folder>/
      category_module.safetensors             f
      category_module.safetensors.card.json   `AdaptedCard`
      task_module.<task>.safetensors          where g has BatchNorm: g with statistics of the
                                              target's images, its weights as they were
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import nn

from rootstock.common.compatible.adaptation import AdaptationSettings, RotationAccuracy
from rootstock.common.documents import Document
from rootstock.common.errors import ConflictError
from rootstock.common.files import storage_errors, sync_folder, write_bytes
from rootstock.common.nets.spec import ArchitectureSpec, Name
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.card import ModuleCard, card_path
from rootstock.common.weights.manifest import BlobEntry, Digest
from rootstock.site_agent.recipes.interface import Teacher

CATEGORY_MODULE = "category_module.safetensors"


class Rotations(Document):
    """Accuracy of the frozen rotation head on images that f did not learn from."""

    own: RotationAccuracy
    """On the lab's own holdout images, above f as it was: what the target's are compared with."""
    source: RotationAccuracy
    """On target images set apart, above f as it was."""
    re_estimated: RotationAccuracy
    """Above f with BatchNorm statistics of target images; as `source` where f has none."""
    adapted: RotationAccuracy


class TargetErrors(Document):
    """Percent of the labelled target images that one task's g gets wrong; nothing is chosen."""

    source: float
    re_estimated: float
    adapted: float


class AdaptedFacts(Document):
    """What was adapted, how, and how it does."""

    site: Name
    category: Name
    category_architecture: ArchitectureSpec
    made_of: dict[str, Digest]
    """Of the teacher's manifest, of f and each g as they were, of the rotation head, of the
    published heads, of all target images and of the labelled ones."""
    settings: AdaptationSettings
    batch_norm_layers: int = Field(ge=0)
    """Of f and the g of one task; 0: the net has no BatchNorm, and `re_estimated` is `source`."""
    images: int
    learned_from: int
    judged_on: int
    step: int
    """After which f was kept: the least rotation loss on the images set apart."""
    rotations: Rotations
    changed_answers: dict[Name, float]
    """By task: answers about target images that differ between `re_estimated` and `adapted`."""
    labelled: int = 0
    """Images that errors were measured on."""
    errors: dict[Name, TargetErrors] = Field(default_factory=dict)
    """By task; empty without labels."""
    software: dict[str, str]


class AdaptedCard(AdaptedFacts, ModuleCard, extra="forbid"):
    """The facts, and the files; the same inputs give the same card."""

    format: Literal[1] = 1
    weights: Literal["safetensors"] = "safetensors"
    task_modules: dict[Name, BlobEntry]
    """Those with BatchNorm statistics of the target's images; empty if no g has BatchNorm."""


@dataclass(frozen=True)
class Adapted:
    """An adapted net in memory."""

    net: Teacher
    """f adapted below every g, all with BatchNorm statistics of target images."""
    facts: AdaptedFacts
    """For its card."""


def require_free(out: Path) -> None:
    """Raise ConflictError if there is anything at `out` but an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConflictError(f"--out {out}: is there already and not empty; name another folder")


def write(adapted: Adapted, root: Path, out: Path | None) -> tuple[Path, AdaptedCard]:
    """Write an adapted net and its card, all or nothing, and return the folder and the card.

    The folder is `out`; if that is None, one in `root` that is named by its card's digest.
    """
    parent = root if out is None else out.parent
    aside = parent / f".{secrets.token_hex(8)}.aside"
    with storage_errors(aside):
        aside.mkdir(parents=True)
        try:
            blob = _written(aside / CATEGORY_MODULE, adapted.net.category_module)
            task_modules = {
                task: _written(aside / f"task_module.{task}.safetensors", g)
                for task, g in sorted(adapted.net.task_modules.items())
                if any(isinstance(layer, nn.BatchNorm2d) for layer in g.modules())
            }
            card = AdaptedCard(**dict(adapted.facts), blob=blob, task_modules=task_modules)
            text = card.model_dump_json(indent=2).encode() + b"\n"
            write_bytes(card_path(aside / CATEGORY_MODULE), text)
            target = root / card.content_digest() if out is None else out
            if out is None and target.is_dir():
                return target, card  # the same inputs, settings and numbers: it is there
            if out is not None:
                require_free(out)
            sync_folder(aside)
            aside.rename(target)
            sync_folder(parent)
            return target, card
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _written(path: Path, module: nn.Module) -> BlobEntry:
    return safetensors_io.write(path, {k: v.cpu() for k, v in module.state_dict().items()})
