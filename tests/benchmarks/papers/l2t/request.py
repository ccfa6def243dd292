"""What was asked for, checked and whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rootstock.common.errors import ConfigurationError, SchemaError
from tests.benchmarks.papers.l2t import tasks
from tests.benchmarks.papers.l2t.budget import BUDGETS, Budget
from tests.benchmarks.papers.l2t.methods import METHODS

SOURCES = ("cifar10-even", "voc-animals")
TARGET = "cifar10-odd"
QUICK_SOURCES = ("mnist", "fashion-mnist")
QUICK_TARGET = "usps"
"""Grey images are read and learned faster than photographs."""
ARCHITECTURES = ("small-resnet", "small-vgg")
TARGET_ARCHITECTURE = "small-vgg"


@dataclass(frozen=True)
class Request:
    """Methods and sizes to be measured."""

    sources: tuple[tuple[str, str], ...]
    """(task, architecture). The first alone serves every method; all together some as well."""
    target: str
    methods: tuple[str, ...]
    budget: Budget
    root: Path
    cache: Path
    workers: int
    device: str


def requested(
    *,
    sources: Sequence[str] = (),
    target: str = "",
    methods: Sequence[str] = (),
    samples: Sequence[int] = (),
    seeds: int | None = None,
    size: str = "default",
    root: Path,
    cache: Path,
    workers: int | None = None,
    device: str = "cpu",
) -> Request:
    """Check what was asked for and fill in what was left out.

    Parameters
    ----------
    sources
        "task" or "task:architecture"; a small ResNet unless told otherwise.

    Raises
    ------
    SchemaError
        If a task, an architecture or a method is not known; names those that are. If a source is
        the target or is there twice; if fine-tuning is asked for from another architecture.
    ConfigurationError
        If the device is not there.
    """
    quick = size == "quick"
    target = target or (QUICK_TARGET if quick else TARGET)
    named = tuple(_source(text) for text in (sources or (QUICK_SOURCES if quick else SOURCES)))
    tasks.require(target)
    names = [task for task, _ in named]
    if target in names or len(set(names)) < len(names):
        raise SchemaError(
            f"--sources {','.join(names)} --target {target}: sources are tasks other than the "
            "target, each once"
        )
    alike = named[0][1] == TARGET_ARCHITECTURE
    known = tuple(METHODS)
    if unknown := [method for method in methods if method not in known]:
        raise SchemaError(f"unknown method '{unknown[0]}'; known are {', '.join(known)}")
    if "fine-tune" in methods and not alike:
        raise SchemaError(
            f"fine-tune begins with the first source's weights, and '{names[0]}' is a "
            f"{named[0][1]}; give --sources {names[0]}:{TARGET_ARCHITECTURE}"
        )
    if any(count < 1 for count in samples):
        raise SchemaError(f"--samples-per-class {list(samples)}: give numbers from 1 on")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ConfigurationError(f"--device {device} is not there; use cpu, or cuda with a GPU")
    budget = BUDGETS[size]
    budget = replace(budget, seeds=seeds or budget.seeds, samples=tuple(samples) or budget.samples)
    cores = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    return Request(
        sources=named,
        target=target,
        methods=tuple(methods) or tuple(m for m in known if alike or m != "fine-tune"),
        budget=budget,
        root=root,
        cache=cache,
        workers=workers or cores,
        device=device,
    )


def _source(text: str) -> tuple[str, str]:
    task, _, architecture = text.partition(":")
    tasks.require(task)
    architecture = architecture or ARCHITECTURES[0]
    if architecture not in ARCHITECTURES:
        raise SchemaError(
            f"--sources {text}: unknown architecture '{architecture}'; known are "
            f"{', '.join(ARCHITECTURES)}"
        )
    return task, architecture
