"""What recipe `compatible` saves: the same labs under both recipes, joined without a sample.

The first category founds the net. The others are trained twice: as ever, and below the net's frozen
task module (and, where a data set has public images, below a rotation head learned on them above
the founder's category module), all else equal. Each is then joined to the net's task module with no
adapter, by the closed form and by `auto`, and judged on test images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console

from rootstock.common.compatible.rotation import TURNS, RotationSettings, learn_rotation_head
from rootstock.common.errors import SchemaError
from rootstock.common.images.decode import normalise
from rootstock.common.nets.architectures import build_head, initialise
from rootstock.common.nets.training import in_batches
from rootstock.site_agent.recipes.compatible import FrozenHeads
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.scoring.metrics import error_percent
from tests.benchmarks.harness import results
from tests.benchmarks.harness.intervals import over_seeds
from tests.benchmarks.harness.pool import processes, run_all
from tests.benchmarks.papers.transplant import cells, datasets, teachers
from tests.benchmarks.papers.transplant.cells import Cell
from tests.benchmarks.papers.transplant.datasets import Dataset
from tests.benchmarks.papers.transplant.material import Material, between
from tests.benchmarks.papers.transplant.teachers import Below

SUPERVISED = "supervised"
TASK_HEAD = "compatible"
BOTH_HEADS = "compatible, rotation"
JOINS = ("identity", "closed-form", "auto")
SPLIT = "pool2"
"""Where the nets of the experiments split unless told otherwise."""
ROTATION_IMAGES = 2000
"""Public images that the rotation head is learned on: as many as a coordinator reads."""


@dataclass(frozen=True)
class RecipeRow:
    """One lab's net under one recipe, joined in one way without a sample; errors in percent."""

    data: str
    category: str
    recipe: str
    join: str
    seed: int
    error: float | None
    calibrated_error: float | None
    teacher_error: float


@dataclass(frozen=True)
class _Wanted:
    data: str
    category: str
    recipe: str
    seed: int
    root: Path
    cache: Path


def recipes(data: str) -> tuple[str, ...]:
    """Return the recipes that a data set can serve."""
    both = (SUPERVISED, TASK_HEAD)
    return (*both, BOTH_HEADS) if data == teachers.START else both


def measure(
    data: str,
    categories: Sequence[str],
    seeds: int,
    root: Path,
    cache: Path,
    workers: int,
    console: Console,
) -> list[RecipeRow]:
    """Train what is not in the cache, join and judge.

    Parameters
    ----------
    data, categories
        A data set of the experiments, and categories of it other than the founder.
    seeds
        Runs 0 to `seeds` − 1.
    root, cache
        Of data sets; of trained nets.
    workers
        Processes side by side.
    console
        Shows how far it is.

    Raises
    ------
    SchemaError
        If data or a category is not known, or a category is the founder.
    """
    if data not in datasets.NAMES:
        raise SchemaError(f"unknown data '{data}'; known are {', '.join(datasets.NAMES)}")
    founder, *known = datasets.SIMILAR[data]
    if unknown := [category for category in categories if category not in known]:
        raise SchemaError(
            f"'{unknown[0]}' is none of the categories that join {founder}'s net on {data}: "
            f"{', '.join(known)}"
        )
    datasets.load(data, root, cache)  # once, before the processes start
    with processes(workers) as pool:
        # One seed's founder is everyone's: it must be there before the others ask for it.
        founders = [_Wanted(data, founder, SUPERVISED, seed, root, cache) for seed in range(seeds)]
        run_all(pool, "founders", _found, founders, console)
        wanted = [
            _Wanted(data, category, recipe, seed, root, cache)
            for seed in range(seeds)
            for category in categories
            for recipe in recipes(data)
        ]
        found = run_all(pool, "labs", _rows, wanted, console)
    return [row for rows in found for row in rows]


def made(
    data: str,
    categories: Sequence[str],
    seeds: int,
    *,
    root: Path,
    cache: Path,
    workers: int,
    folder: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Return the rows as JSON; write the page's section where a folder is given."""
    began = time.perf_counter()
    chosen = tuple(categories) or datasets.SIMILAR.get(data, ())[1:]
    rows = measure(data, chosen, seeds, root, cache, workers, console)
    seconds = time.perf_counter() - began
    command = (
        f"rootstock bench recipes --data {data} --categories {','.join(chosen)} --seeds {seeds}"
    )
    text = body(rows, seconds)
    if folder is not None:
        title = f"Recipes: what training below the net's task module saves ({data})"
        results.write(folder, results.Section(f"recipes-{data}", title, command, text))
    return {
        "text": text,
        "rows": [asdict(row) for row in rows],
        "command": command,
        "machine": results.machine(),
        "seconds": round(seconds, 1),
    }


def body(rows: Sequence[RecipeRow], seconds: float) -> str:
    """Return the section's text."""
    categories = ", ".join(dict.fromkeys(row.category for row in rows))
    lines = [
        f"Error in % on test images, no sample, mean over {categories} and "
        f"{len({row.seed for row in rows})} seeds; ± half a 95% interval over seeds; after an "
        f"arrow with the lab's calibration. {round(seconds)} s.",
        "",
        "| recipe | teacher | no adapter | closed form, 3×3 | auto, 3×3 |",
        "|---|---|---|---|---|",
    ]
    for recipe in dict.fromkeys(row.recipe for row in rows):
        own = [row for row in rows if row.recipe == recipe]
        told = [_teacher(own), *(_joined(own, join) for join in JOINS)]
        lines.append(f"| {recipe} | {' | '.join(told)} |")
    return "\n".join([*lines, "", *_verdicts(rows)])


def _teacher(rows: Sequence[RecipeRow]) -> str:
    identity = [row for row in rows if row.join == JOINS[0]]
    return str(over_seeds((row.seed, row.teacher_error) for row in identity))


def _joined(rows: Sequence[RecipeRow], join: str) -> str:
    own = [row for row in rows if row.join == join]
    plain = over_seeds((row.seed, row.error) for row in own)
    calibrated = over_seeds((row.seed, row.calibrated_error) for row in own)
    return "–" if plain is None else f"{plain}" + ("" if calibrated is None else f"→{calibrated}")


def _verdicts(rows: Sequence[RecipeRow]) -> list[str]:
    """Say what each other recipe saves against `supervised`, join by join."""
    told = []
    for recipe in dict.fromkeys(row.recipe for row in rows):
        if recipe == SUPERVISED:
            continue
        saved = []
        for join in JOINS:
            before, after = (_mean(rows, each, join) for each in (SUPERVISED, recipe))
            if before is not None and after is not None:
                saved.append(f"{join} {before - after:+.1f}")
        told.append(f"Points of error that `{recipe}` saves: {', '.join(saved)}.")
    return told


def _mean(rows: Sequence[RecipeRow], recipe: str, join: str) -> float | None:
    found = [row.error for row in rows if (row.recipe, row.join) == (recipe, join)]
    known = [error for error in found if error is not None]
    return mean(known) if known and len(known) == len(found) else None


def _found(wanted: _Wanted) -> None:
    dataset = datasets.load(wanted.data, wanted.root, wanted.cache)
    _founder(dataset, wanted.seed, wanted.root, wanted.cache)


def _founder(dataset: Dataset, seed: int, root: Path, cache: Path) -> Teacher:
    category = dataset.similar[0]
    split = datasets.lab(dataset, category, seed=seed)
    return teachers.trained(dataset, category, split, seed=seed, root=root, cache=cache)


def _below(dataset: Dataset, recipe: str, seed: int, root: Path, cache: Path) -> Below | None:
    """Return the heads that a recipe trains below."""
    if recipe == SUPERVISED:
        return None
    founder = _founder(dataset, seed, root, cache)
    rotation = None
    if recipe == BOTH_HEADS and dataset.public is not None:
        rotation = initialise(build_head(dataset.architecture, TURNS), seed)
        images = normalise(dataset.public.images_NCSS[:ROTATION_IMAGES])
        learn_rotation_head(rotation, founder.category_module, images, RotationSettings(seed=seed))
    return Below(
        f"{dataset.similar[0]}{'' if rotation is None else ' rotation'}",
        FrozenHeads(dict(founder.task_modules), rotation),
    )


def _rows(wanted: _Wanted) -> list[RecipeRow]:
    dataset = datasets.load(wanted.data, wanted.root, wanted.cache)
    material = between(
        dataset,
        wanted.category,
        dataset.similar[0],
        seed=wanted.seed,
        root=wanted.root,
        cache=wanted.cache,
        below=_below(dataset, wanted.recipe, wanted.seed, wanted.root, wanted.cache),
    )
    # Channels in their own order, as a coordinator joins them: the experiments' reorder layer
    # would undo what common initial weights and heads have in common.
    material = replace(material, permutation_C=torch.arange(material.channels))
    teacher_error = error_percent(
        in_batches(material.problem.teacher_task, material.test.features_NCHW).flatten(),
        material.test.labels_N,
    )
    return [_row(wanted, material, join, teacher_error) for join in JOINS]


def _row(wanted: _Wanted, material: Material, join: str, teacher_error: float) -> RecipeRow:
    cell = Cell(
        experiment=2,
        data=wanted.data,
        category=wanted.category,
        seed=wanted.seed,
        samples=(0,),
        methods=(join,),
        root=wanted.root,
        cache=wanted.cache,
        split=SPLIT,
        quick=False,
    )
    error, calibrated = cells.judged(join, cells.AUTO, 0, cell, material)
    return RecipeRow(
        wanted.data,
        wanted.category,
        wanted.recipe,
        join,
        wanted.seed,
        error,
        calibrated,
        teacher_error,
    )
