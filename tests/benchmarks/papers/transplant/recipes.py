"""What recipe `compatible` saves: the same labs under both recipes, joined without a sample.

The first category founds the net. The others are trained twice: as ever, and below the net's frozen
task module (and, where a data set has public images, below a rotation head learned on them above
the founder's category module), all else equal. Each is then joined to the net's task module with no
adapter, by the closed form and by `auto`, and judged on test images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from rootstock.common.compatible.rotation import TURNS, RotationSettings, learn_rotation_head
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import build_head, initialise
from rootstock.common.nets.training import in_batches
from rootstock.site_agent.recipes.compatible import FrozenHeads
from rootstock.site_agent.scoring import error_percent
from tests.benchmarks.harness import tables
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Budget, Request
from tests.benchmarks.harness.rows import average, chosen, distinct
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.shared.datasets import Lab
from tests.benchmarks.papers.transplant import cells, teachers
from tests.benchmarks.papers.transplant.cells import Cell, Setup
from tests.benchmarks.papers.transplant.material import between
from tests.benchmarks.papers.transplant.reference import OfLabs
from tests.benchmarks.papers.transplant.teachers import Below

SUPERVISED = "supervised"
TASK_HEAD = "compatible"
BOTH_HEADS = "compatible, rotation"
JOINS = ("identity", "closed-form", "auto")
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


class Recipes(OfLabs[RecipeRow]):
    kind = "recipes"
    says = "what training below the net's task module saves"

    def measure(self, run: Workers) -> list[RecipeRow]:
        """Train what is not in the cache, join and judge."""
        folders, seeds = self.request.folders, self.request.seeds
        datasets.load(self.data, folders)  # once, before the processes start
        setup = Setup(folders, 2, self.data, (0,), JOINS)
        # One seed's founder is everyone's: it must be there before the others ask for it.
        founder = datasets.SIMILAR[self.data][0]
        run.fill("founders", cells.prepare, [Cell(setup, founder, seed) for seed in seeds])
        wanted = [
            (Cell(setup, category, seed), recipe)
            for seed in seeds
            for category in self.categories
            for recipe in recipes(self.data)
        ]
        return run.rows("labs", joined, wanted)

    def grid(self, rows: Sequence[RecipeRow]) -> list[list[str]]:
        columns = {
            "teacher": tables.averaged("teacher_error", join=JOINS[0]),
            "no adapter": _column("identity"),
            "closed form, 3×3": _column("closed-form"),
            "auto, 3×3": _column("auto"),
        }
        return tables.grid(rows, {"recipe": "recipe"}, columns)

    def paragraphs(self, rows: Sequence[RecipeRow], seconds: float) -> Iterator[str]:
        yield (
            f"Error in % on test images, no sample, mean over "
            f"{', '.join(distinct(rows, 'category'))} and {len(distinct(rows, 'seed'))} seeds; ± "
            "half a 95% interval over seeds; after an arrow with the lab's calibration. "
            f"{round(seconds)} s."
        )
        yield tables.markdown(self.grid(rows))
        yield "\n".join(verdicts(rows))


def requested(request: Request[Budget], data: str, categories: Sequence[str]) -> Recipes:
    datasets.require(data)
    founder, *known = datasets.SIMILAR[data]
    what = f"the categories that join {founder}'s net on {data}"
    return Recipes(request, data, datasets.categories(categories, known, what))


def recipes(data: str) -> tuple[str, ...]:
    """Return the recipes that a data set can serve."""
    both = (SUPERVISED, TASK_HEAD)
    return (*both, BOTH_HEADS) if data == teachers.START else both


def verdicts(rows: Sequence[RecipeRow]) -> Iterator[str]:
    """Say what each other recipe saves against `supervised`, join by join."""
    for recipe in distinct(rows, "recipe"):
        if recipe == SUPERVISED:
            continue
        saved = []
        for join in JOINS:
            before, after = (
                average(chosen(rows, recipe=each, join=join), "error")
                for each in (SUPERVISED, recipe)
            )
            if before is not None and after is not None:
                saved.append(f"{join} {before.mean - after.mean:+.1f}")
        yield f"Points of error that `{recipe}` saves: {', '.join(saved)}."


def _column(join: str) -> tables.Column:
    def column(rows: Sequence[RecipeRow]) -> str | None:
        own = chosen(rows, join=join)
        plain, calibrated = average(own, "error"), average(own, "calibrated_error")
        return None if plain is None else f"{plain}" + (f"→{calibrated}" if calibrated else "")

    return column


def _below(lab: Lab, recipe: str) -> Below | None:
    """Return the heads that a recipe trains below."""
    if recipe == SUPERVISED:
        return None
    dataset = lab.dataset
    founder = teachers.trained(replace(lab, category=dataset.similar[0]))
    rotation = None
    if recipe == BOTH_HEADS and dataset.public is not None:
        rotation = initialise(build_head(dataset.architecture, TURNS), lab.seed)
        images = normalise(dataset.public.images_NCSS[:ROTATION_IMAGES])
        settings = RotationSettings(seed=lab.seed)
        learn_rotation_head(rotation, founder.category_module, images, settings)
    return Below(
        f"{dataset.similar[0]}{'' if rotation is None else ' rotation'}",
        FrozenHeads(dict(founder.task_modules), rotation),
    )


def joined(wanted: tuple[Cell, str]) -> list[RecipeRow]:
    """Train a lab under a recipe; join it in every way, and judge."""
    cell, recipe = wanted
    lab = cell.lab()
    material = between(lab, lab.dataset.similar[0], below=_below(lab, recipe))
    # Channels in their own order, as a coordinator joins them: the experiments' reorder layer
    # would undo what common initial weights and heads have in common.
    material = replace(material, permutation_C=torch.arange(material.channels))
    teacher_error = error_percent(
        in_batches(material.problem.teacher_task, material.test.features_NCHW).flatten(),
        material.test.labels_N,
    )
    rows = []
    for join in JOINS:
        error, calibrated = cells.judged(join, cells.AUTO, 0, cell, material)
        rows.append(
            RecipeRow(
                cell.setup.data,
                cell.category,
                recipe,
                join,
                cell.seed,
                error,
                calibrated,
                teacher_error,
            )
        )
    return rows
