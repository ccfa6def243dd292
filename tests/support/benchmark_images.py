"""Images that are learned in seconds, where the benchmarks look for decoded data sets."""

from __future__ import annotations

from pathlib import Path

import torch

from rootstock.common.weights import safetensors_io
from tests.benchmarks.papers.shared.datasets import CIFAR10, Labelled


def images(count: int, seed: int, classes: int = len(CIFAR10)) -> Labelled:
    """Noise, with a pattern in one colour: both say the class."""
    generator = torch.Generator().manual_seed(seed)
    kinds_N = torch.arange(count) % classes
    noise = torch.randint(60, 160, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    stripes = (torch.arange(32) // 2 % 2).expand(32, 32)
    patterns = (stripes, stripes.T, stripes ^ stripes.T, torch.ones(32, 32))
    for place, kind in enumerate(kinds_N.tolist()):
        noise[place, kind % 3][patterns[kind // 3] == 1] = 255
    return Labelled(noise, kinds_N)


def decoded(folder: Path) -> Path:
    """Keep CIFAR-10 as `datasets.load` does; return the folder."""
    _write(
        folder / "cifar10-1.safetensors",
        {"public": images(80, 1), "training": images(320, 2), "test": images(100, 3)},
    )
    return folder


def grey(folder: Path, name: str, *, classes: int = 10, seed: int = 5) -> None:
    """Keep a grey task as `grey_task` does."""
    parts = {"training": images(200, seed, classes), "test": images(60, seed + 1, classes)}
    for part, shown in parts.items():
        parts[part] = Labelled(shown.images_NCSS[:, :1].contiguous(), shown.classes_N)
    _write(folder / f"grey-{name}-1.safetensors", parts)


def _write(path: Path, parts: dict[str, Labelled]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{part}/{what}": tensor
        for part, shown in parts.items()
        for what, tensor in (("images", shown.images_NCSS), ("classes", shown.classes_N))
    }
    safetensors_io.write(path, tensors)
