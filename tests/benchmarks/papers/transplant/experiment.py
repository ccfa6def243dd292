"""``rootstock bench transplant``: the experiments of Network Transplanting, on real images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from rootstock.common.errors import SchemaError
from tests.benchmarks.harness import experiment, tables
from tests.benchmarks.harness.goal import Goal
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Budget, Request
from tests.benchmarks.harness.rows import average, chosen, distinct, over
from tests.benchmarks.harness.tables import DASH, averaged
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.shared.datasets import PRETRAINED
from tests.benchmarks.papers.transplant import cells, goals, plots, segmentation, segmentation_cells
from tests.benchmarks.papers.transplant.cells import ALL, CEILING, Cell, Row, Setup

BUDGETS = (Budget("quick", 1), Budget("default", 3))
TITLES = {
    1: "Experiment 1: an adapter in a net of one's own, channels reordered",
    2: "Experiment 2: categories onto another category's classification module",
    3: "Experiment 3: categories onto another category's segmentation module",
    4: "Experiment 4: categories onto a module learned from all the others",
}
SAMPLES = (0, 10, 20, 50, 100)
METHODS: dict[int, tuple[str, ...]] = {
    1: ("identity", "direct-learn", "back-distill", "closed-form", "auto"),
    2: (
        "identity",
        "direct-learn",
        "distill",
        "jacobian",
        "back-distill",
        "closed-form",
        "dream",
        "auto",
        CEILING,
    ),
    3: ("identity", "direct-learn", "distill", "back-distill", "closed-form", "auto"),
    4: ("identity", "direct-learn", "back-distill", "closed-form", "auto", CEILING),
}
"""What an experiment compares unless told otherwise."""
QUICK_WITHOUT = ("jacobian", "distill", "dream", CEILING)
PAPER: dict[tuple[int, str, str], dict[int, float]] = {
    (1, "direct-learn", "3x3"): {10: 38.76, 20: 25.98, 50: 14.84, 100: 9.79},
    (1, "back-distill", "3x3"): {0: 1.75, 10: 1.65, 20: 1.55, 50: 1.65, 100: 1.65},
    (1, "direct-learn", "3x3 x3"): {10: 33.92, 20: 25.15, 50: 11.96, 100: 8.66},
    (1, "back-distill", "3x3 x3"): {0: 49.90, 10: 11.65, 20: 5.77, 50: 3.40, 100: 2.37},
    (2, "direct-learn", "1x1 x3"): {10: 39.31, 20: 36.08, 50: 19.07, 100: 15.72},
    (2, "back-distill", "1x1 x3"): {10: 38.66, 20: 27.96, 50: 11.98, 100: 7.09},
    (3, "direct-learn", "1x1"): {10: 74.99, 20: 75.15, 50: 75.34, 100: 77.63},
    (3, "distill", "1x1"): {10: 75.09, 20: 75.04, 50: 76.01, 100: 78.35},
    (3, "back-distill", "1x1"): {10: 85.32, 20: 86.66, 50: 87.30, 100: 87.97},
    (4, "direct-learn", "1x1 x3"): {10: 39.69, 20: 28.10, 50: 17.65, 100: 15.98},
    (4, "back-distill", "1x1 x3"): {10: 33.51, 20: 18.82, 50: 7.73, 100: 4.64},
}
"""The paper's averages over categories (tables 2 to 4): errors, in Experiment 3 pixel accuracies,
both in percent. VGG-16 from ImageNet at 224 pixels: to be compared in shape, not in value."""


FEWEST_IMAGES, MOST_IMAGES = 16, 200
"""Of each side; half a batch of a lab's training, and what the smallest category has."""
PRETRAINED_SETTING = (
    "One animal against the others, at most 500 training images of each side, 224 pixels. Every "
    "lab's EfficientNet-Lite0 begins with ImageNet's weights and learns its last layer, on what "
    "the frozen ones say to each image and to one augmented view of it; rate and epochs were "
    "chosen on images that labs hold back. All category modules are the start's own, therefore. "
    "Unless the command names a split, nets split after block16 (f 3.0 million parameters, g 0.4 "
    "million, features 320×7×7). Nothing is reordered, and every method begins with the adapter "
    "that passes features on. `auto` dreams nothing here: it draws features from shipped moments. "
    "No other split was compared at this size, and the 1×1 kernel is from former trials on the "
    "same test images, against this page's rule."
)


@dataclass(frozen=True)
class Transplant(experiment.Experiment[Budget, Row]):
    setup: Setup
    categories: tuple[str, ...]
    left = 2

    @property
    def name(self) -> str:
        split = f"-{self.setup.split}" if self.setup.split else ""
        images = f"-{self.setup.images}-images" if self.setup.images else ""
        return f"transplant-{self.setup.experiment}-{self.setup.data}{split}{images}"

    @property
    def title(self) -> str:
        few = f", labs with {self.setup.images} images" if self.setup.images else ""
        return f"{TITLES[self.setup.experiment]} ({self.setup.data}{few})"

    @property
    def unit(self) -> str:
        return "pixel accuracy in %" if self.setup.experiment == 3 else "error in %"

    def words(self) -> list[str]:
        setup = self.setup
        words = [
            "transplant",
            f"--experiment {setup.experiment}",
            f"--data {setup.data}",
            f"--samples {','.join(map(str, setup.samples))}",
            f"--methods {','.join(setup.methods)}",
            f"--categories {','.join(self.categories)}",
        ]
        words += [f"--split {setup.split}"] if setup.split else []
        return [*words, f"--images {setup.images}"] if setup.images else words

    def measure(self, run: Workers) -> list[Row]:
        """Return all rows, in the order of seeds, categories, methods and samples."""
        setup, student = self.setup, datasets.SIMILAR[self.setup.data][0]
        if setup.experiment == 3:
            segmentation.load(setup.folders)  # once, before the processes start
            first, *others = dict.fromkeys((*self.categories, student))
            # The first net of a seed trains its common start.
            for part in ([first], others):
                run.fill("teachers", segmentation_cells.prepare, self.cells(part))
            return run.rows("transplants", segmentation_cells.run, self.cells())
        datasets.load(setup.data, setup.folders)
        run.fill("common starts", cells.prepare, self.cells([""]))
        needed = {*self.categories, *([student] if setup.experiment == 2 else [])}
        run.fill("teachers", cells.prepare, self.cells(sorted(needed)))
        if setup.images:  # the net that is joined has all images
            all_images = replace(setup, images=0)
            joined = [Cell(all_images, student, seed) for seed in self.request.seeds]
            run.fill("the joined net", cells.prepare, joined)
        return run.rows("transplants", cells.run, self.cells())

    def cells(self, categories: Sequence[str] | None = None) -> list[Cell]:
        return [
            Cell(self.setup, category, seed)
            for seed in self.request.seeds
            for category in (self.categories if categories is None else categories)
        ]

    def goals(self, rows: Sequence[Row]) -> list[Goal]:
        return goals.goals(rows)

    def heading(self, rows: Sequence[Row]) -> str:
        title = TITLES[self.setup.experiment]
        return f"{title}\n{self.unit} on test images, mean and 95% interval over seeds"

    def grid(self, rows: Sequence[Row]) -> list[list[str]]:
        return [*grid(rows, "{}"), *([label, "", value] for label, value in footer(rows))]

    def paragraphs(self, rows: Sequence[Row], seconds: float) -> Iterator[str]:
        yield (
            f"{self.unit.capitalize()}, mean over {', '.join(distinct(rows, 'category'))} and "
            f"{over(rows)}. {round(seconds)} s with teachers in the cache or trained."
        )
        if self.setup.data == PRETRAINED:
            yield PRETRAINED_SETTING
        if self.setup.images:
            yield (
                f"Labs that join have {self.setup.images} training images of each side, and show "
                "each in 16 views for 200 epochs; the net that they join has all images. What is "
                "calibrated below is so on images that a lab this small does not have."
            )
        yield tables.markdown(beside_the_papers(rows))
        yield "; ".join(f"{label}: {value}" for label, value in footer(rows)) + "."
        if len(calibrated := calibrated_grid(rows)) > 1:
            yield "With scale and bias of the output set by the lab:"
            yield tables.markdown(calibrated)
        if len(distinct(rows, "category")) > 1:
            yield "By category:"
            yield tables.markdown(by_category(rows))

    def pictures(self, rows: Sequence[Row], run: Workers) -> dict[str, Figure]:
        drawn = {"": plots.over_samples(rows)}
        # Of large nets it would take as long as the table.
        if self.setup.experiment == 2 and self.setup.data != PRETRAINED:
            wanted = [cell for cell in self.cells() if cell.seed == 0]
            spaces = run.run("feature spaces", cells.space, wanted)
            drawn["-features"] = plots.feature_spaces(
                dict(zip(self.categories, spaces, strict=True))
            )
        return drawn


def requested(
    request: Request[Budget],
    number: int,
    data: str,
    *,
    samples: Sequence[int] = (),
    methods: Sequence[str] = (),
    categories: Sequence[str] = (),
    split: str = "",
    images: int = 0,
) -> Transplant:
    """Check what was asked for and fill in what was left out."""
    if number not in METHODS:
        raise SchemaError(f"unknown experiment {number}; known are 1, 2, 3, 4")
    datasets.require(data)
    if number == 3 and data != "voc-animals":
        raise SchemaError(
            "experiment 3 segments, and only voc-animals has masks; use --data voc-animals"
        )
    if number == 4 and data != "cifar10":
        raise SchemaError(f"{data} has no dissimilar categories for experiment 4; use cifar10")
    known = METHODS[number]
    if unknown := [method for method in methods if method not in known]:
        raise SchemaError(
            f"experiment {number} has no method '{unknown[0]}'; it has {', '.join(known)}"
        )
    if any(count < 0 or count > 1000 for count in samples):
        raise SchemaError(f"--samples {list(samples)}: numbers from 0 to 1000 are possible")
    targets = datasets.SIMILAR[data][0 if number == 1 else 1 :]
    what = f"the categories that experiment {number} transplants on {data}"
    quick = request.budget.name == "quick"
    targets = datasets.categories(categories, targets, what)
    if quick:
        samples = samples or (0, 20)
        targets = targets if categories else targets[:2]
        known = tuple(method for method in known if method not in QUICK_WITHOUT)
    if split == datasets.own_split(data):
        split = ""
    if images and (data != PRETRAINED or number != 2):
        raise SchemaError(
            f"--images {images}: labs with few images begin with a trained net; use --experiment 2 "
            f"--data {PRETRAINED}"
        )
    if images and not FEWEST_IMAGES <= images <= MOST_IMAGES:
        raise SchemaError(
            f"--images {images}: a lab makes a batch of {FEWEST_IMAGES} or more, and no category "
            f"has more than {MOST_IMAGES} at every seed; give a number between"
        )
    if images and any(count > 2 * images for count in samples or SAMPLES):
        raise SchemaError(
            f"--samples {list(samples or SAMPLES)}: a lab with {images} images of each side has "
            f"{2 * images}; ask for no more"
        )
    setup = Setup(
        request.folders,
        number,
        data,
        tuple(samples) or SAMPLES,
        tuple(methods) or known,
        split,
        images,
        quick,
    )
    return Transplant(request, setup, targets)


def grid(rows: Sequence[Row], title: str) -> list[list[str]]:
    """Return a line for each method and adapter, a column for each number of samples."""
    columns = {title.format(n): averaged("measured", samples=n) for n in goals.counts(rows)}
    shown = [row for row in rows if row.method != CEILING]
    return tables.grid(shown, {"method": "method", "adapter": "adapter"}, columns)


def footer(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the teacher and the ceilings."""
    ceilings = chosen(rows, method=CEILING, samples=ALL)
    return [("teacher", str(goals.teacher(rows)))] + [
        (f"ceiling {adapter}", str(average(chosen(ceilings, adapter=adapter), "measured")))
        for adapter in distinct(ceilings, "adapter")
    ]


def beside_the_papers(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table with the paper's numbers below ours."""
    head, *lines = grid(rows, "n={}")
    shown = [head]
    for method, adapter, *numbers in lines:
        shown.append([method, adapter, *numbers])
        if papers := PAPER.get((rows[0].experiment, method, adapter)):
            theirs = [f"{papers[n]:.2f}" if n in papers else DASH for n in goals.counts(rows)]
            shown.append(["*the paper's*", adapter, *theirs])
    return shown


def calibrated_grid(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table of calibrated errors; the ceiling's stands in the first column."""
    counts = goals.counts(rows)
    shown = [
        replace(row, method="ceiling (all images)", samples=counts[0])
        if row.method == CEILING
        else row
        for row in rows
    ]
    columns = {f"n={n}": averaged("calibrated_error", samples=n) for n in counts}
    by = {"method": "method", "adapter": "adapter"}
    head, *lines = tables.grid(shown, by, columns)
    return [head, *(line for line in lines if set(line[2:]) != {DASH})]


def by_category(rows: Sequence[Row]) -> list[list[str]]:
    """Return `auto` and direct-learn by category, as the paper's tables have them."""
    compared = [row for row in rows if row.method in ("direct-learn", "back-distill", "auto")]
    compared.sort(key=lambda row: -row.samples)
    by: dict[str, tables.Key] = {
        "n": "samples",
        "method": lambda row: f"{row.method} {row.adapter}",
    }
    return tables.grid(compared, by, tables.across(rows, "category", "measured"))
