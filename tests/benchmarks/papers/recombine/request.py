"""What was asked for, checked and whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from rootstock.common.errors import ConfigurationError, SchemaError
from tests.benchmarks.papers.recombine.budget import BUDGETS, Budget

TITLES = {
    "analysis": "Recombination accuracy of two nets on overlapping classes",
    "incremental": "The second net trained against frozen heads of the first",
    "bound": "Both nets on the same ten classes: how near to the upper bound",
    "split": "Recombination accuracy over the layer where nets split",
    "architectures": "One classifier above extractors of several architectures",
    "transfer": "Choosing a source to transfer from, with little fine-tuning or none",
    "uda": "Unsupervised domain adaptation by rotations, MNIST and USPS",
    "classes": "Recombination accuracy over the classes of the shared head",
}
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Request:
    """A setting at a size."""

    setting: str
    budget: Budget
    seeds: int
    root: Path
    cache: Path
    workers: int
    device: str


def requested(
    setting: str,
    *,
    size: str = "default",
    seeds: int | None = None,
    root: Path,
    cache: Path,
    workers: int | None = None,
    device: str = "cpu",
) -> Request:
    """Check what was asked for and fill in what was left out.

    Raises
    ------
    SchemaError
        If the setting is not known; names those that are.
    ConfigurationError
        If the device is not known or not there.
    """
    if setting not in TITLES:
        raise SchemaError(f"unknown setting '{setting}'; known are {', '.join(TITLES)}")
    if device not in DEVICES:
        raise ConfigurationError(f"--device {device}: known are {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device cuda: PyTorch finds no GPU here; use --device cpu")
    budget = BUDGETS[size]
    cores = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    return Request(
        setting=setting,
        budget=budget,
        seeds=seeds or budget.seeds,
        root=root,
        cache=cache,
        workers=workers or cores,
        device=device,
    )
