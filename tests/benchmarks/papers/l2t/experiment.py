"""``rootstock bench l2t``: methods side by side, from sources to a target with few images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.figure import Figure

from rootstock.common.errors import SchemaError
from rootstock.coordinator.pictures.recipes import ends, heat_map
from tests.benchmarks.harness import experiment, plots, tables
from tests.benchmarks.harness.goal import Goal
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Request
from tests.benchmarks.harness.rows import average, chosen, distinct, over
from tests.benchmarks.papers.l2t import cells, goals, tasks
from tests.benchmarks.papers.l2t.budget import Budget
from tests.benchmarks.papers.l2t.cells import TARGET_ARCHITECTURE, Cell, Row, SourceConfig
from tests.benchmarks.papers.l2t.methods import METHODS, OURS, SEVERAL

SOURCES = ("cifar10-even", "voc-animals")
TARGET = "cifar10-odd"
QUICK_SOURCES = ("mnist", "fashion-mnist")
QUICK_TARGET = "usps"
"""Grey images are read and learned faster than photographs."""
ARCHITECTURES = ("small-resnet", TARGET_ARCHITECTURE)
PAPER = {
    "scratch": (67.69, 65.18),
    "lwf": (69.23, 68.64),
    "at": (67.54, 74.19),
    "lwf+at": (68.75, 75.06),
    "fm-single": (69.40, 75.00),
    "fm": (69.97, 76.38),
    "l2t-w-single": (70.27, 74.35),
    "l2t-w": (70.02, 76.42),
    "l2t-ww": (70.96, 78.31),
}
"""The paper's table 1, TinyImageNet (ResNet-32) to CIFAR-100 and to STL-10 (VGG-9), all training
images: to be compared in order, not in value."""


@dataclass(frozen=True)
class L2t(experiment.Experiment[Budget, Row]):
    sources: tuple[tuple[str, str], ...]
    """(task, architecture). The first alone serves every method; all together some as well."""
    target: str
    methods: tuple[str, ...]
    title = "Learning what and where to transfer, with few images"
    left = 2
    wraps = "source"

    @property
    def name(self) -> str:
        return f"l2t-{self.target}"

    def words(self) -> list[str]:
        return [
            "l2t",
            f"--sources {','.join(':'.join(source) for source in self.sources)}",
            f"--target {self.target}",
            f"--samples-per-class {','.join(map(str, self.request.budget.samples))}",
            f"--methods {','.join(self.methods)}",
        ]

    def measure(self, run: Workers) -> list[Row]:
        """Return all rows, in the order of numbers of samples, methods and seeds."""
        folders = self.request.folders
        for name in (*(task for task, _ in self.sources), self.target):
            tasks.task(name, folders)  # once, before the processes start
        wanted = [config for seed in self.request.seeds for config in self.trained(seed)]
        run.fill("sources", partial(cells.trained, folders), wanted)
        return run.run("targets", cells.run, self.cells())

    def trained(self, seed: int) -> tuple[SourceConfig, ...]:
        """Return what decides the sources of a seed."""
        return tuple(
            SourceConfig(
                task=task,
                architecture=self.request.budget.architecture(architecture),
                training=self.request.budget.source,
                seed=seed,
                device=self.request.device,
            )
            for task, architecture in self.sources
        )

    def cells(self) -> list[Cell]:
        """Return every method with the first source, and some with all of them."""
        return [
            Cell(self.request, method, self.trained(seed)[:count], self.target, samples, seed)
            for samples in self.request.budget.samples
            for method in self.methods
            for count in dict.fromkeys(
                (0,) if method == "scratch" else (1, len(self.sources) if method in SEVERAL else 1)
            )
            for seed in self.request.seeds
        ]

    def goals(self, rows: Sequence[Row]) -> list[Goal]:
        return goals.goals(rows)

    def heading(self, rows: Sequence[Row]) -> str:
        return f"Accuracy in % on {rows[0].target}'s test images, by training images a class"

    def grid(self, rows: Sequence[Row]) -> list[list[str]]:
        columns = {
            str(count): tables.averaged("accuracy", samples_per_class=count)
            for count in goals.counts(rows)
        }
        return tables.grid(rows, {"method": "method", "source": "source"}, columns)

    def page_grid(self, rows: Sequence[Row]) -> list[list[str]]:
        """Return the table with the paper's numbers beside it."""
        head, *lines = self.grid(rows)
        shown = [[*head, "paper: CIFAR-100", "STL-10"]]
        for line in lines:
            papers = PAPER.get(line[0], ()) if "+" not in line[1] else ()
            shown.append([*line, *([f"{n:.1f}" for n in papers] or [tables.DASH] * 2)])
        return shown

    def paragraphs(self, rows: Sequence[Row], seconds: float) -> Iterator[str]:
        request, budget, target = self.request, self.request.budget, self.request.budget.target
        steps = f"{target.steps} minibatches" if target.steps else f"{target.epochs} epochs"
        sources = ", ".join(f"{task} ({architecture})" for task, architecture in self.sources)
        yield (
            f"Accuracy in % on {budget.test_images or 'all'} of {self.target}'s test images by "
            f"training images a class, mean over {over(rows)}. "
            f"Sources: {sources}; target: a small VGG of width {budget.vgg_width}, alike at "
            f"the start for every method, {steps} of {target.batch}, SGD {target.rate:g}, "
            f"β {target.beta:g} (divided among sources), weight of forgetting "
            f"{target.forgetting:g} and of attention {target.attention:g}, meta-networks Adam "
            f"{target.meta_rate:g} every {target.meta_period} minibatches, budget "
            f"'{budget.name}', {request.device}. {round(seconds)} s, less what the cache held."
        )
        stand_in = (
            "Even and odd classes of CIFAR-10 stand in for TinyImageNet and CIFAR: two tasks of "
            "photographs without a class in common. "
        )
        yield (
            f"{stand_in if self.target.startswith('cifar10-') else ''}`fm` and `l2t-w` match "
            f"stage with stage, `{OURS}` every stage with every stage; `l2t-w` learns what, "
            f"`{OURS}` what and where."
        )
        yield tables.markdown(self.page_grid(rows))

    def pictures(self, rows: Sequence[Row], run: Workers) -> dict[str, Figure]:
        drawn = {"": over_samples(rows)}
        if any(row.where for row in rows):
            drawn["-lambda"] = lambdas(rows)
        return drawn


def requested(
    request: Request[Budget],
    *,
    sources: Sequence[str] = (),
    target: str = "",
    methods: Sequence[str] = (),
    samples: Sequence[int] = (),
) -> L2t:
    """Check what was asked for and fill in what was left out.

    Parameters
    ----------
    sources
        "task" or "task:architecture"; a small ResNet unless told otherwise.
    """
    quick = request.budget.name == "quick"
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
    if unknown := [method for method in methods if method not in METHODS]:
        raise SchemaError(f"unknown method '{unknown[0]}'; known are {', '.join(METHODS)}")
    if "fine-tune" in methods and not alike:
        raise SchemaError(
            f"fine-tune begins with the first source's weights, and '{names[0]}' is a "
            f"{named[0][1]}; give --sources {names[0]}:{TARGET_ARCHITECTURE}"
        )
    if any(count < 1 for count in samples):
        raise SchemaError(f"--samples-per-class {list(samples)}: give numbers from 1 on")
    budget = replace(request.budget, samples=tuple(samples) or request.budget.samples)
    methods = tuple(methods) or tuple(m for m in METHODS if alike or m != "fine-tune")
    return L2t(replace(request, budget=budget), named, target, methods)


def over_samples(rows: Sequence[Row]) -> Figure:
    """Draw every method's accuracy over training images a class (paper, figure 5)."""
    axes = plots.axes(7.2, 3.8, x="training images a class", y="accuracy in %")
    columns = goals.counts(rows)
    for method, source in distinct(rows, "method", "source"):
        own = chosen(rows, method=method, source=source)
        plots.line(
            axes,
            [(n, average(chosen(own, samples_per_class=n), "accuracy")) for n in columns],
            linewidth=2 if method == OURS else 1,
            linestyle="--" if "+" in source else "-",
            label=f"{method} {source}".strip(),
        )
    axes.set_xscale("log")
    axes.set_xticks(columns, [str(count) for count in columns])
    axes.minorticks_off()
    return plots.legend(axes, 7)


def lambdas(rows: Sequence[Row]) -> Figure:
    """Draw the mean λ of every pair, a panel for each choice of sources (paper, figure 3d)."""
    learned = {
        source: {
            (layer, target): value
            for pair, value in goals.where(rows, source).items()
            for layer, _, target in [pair.partition("->")]
        }
        for source in distinct(chosen(rows, method=OURS), "source")
    }
    figure = plots.figure(3.4 * len(learned) + 0.6, 3.2)
    panels = figure.subplots(1, len(learned), squeeze=False)[0]
    brightest = max(value for by_pair in learned.values() for value in by_pair.values())
    for axes, (source, by_pair) in zip(panels, learned.items(), strict=True):
        layers, targets = ends(by_pair)
        heat_map(axes, by_pair, layers, targets, title=f"λ, {source}", brightest=brightest)
    return figure


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
