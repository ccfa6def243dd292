"""``rootstock bench which``: a grown net as one classifier of all its categories.

Every category's join answers every test image, and the most probable category is the answer. What a
user would otherwise do is to train one net centrally on all labs' images of their categories.

Shapes: N images, K categories, S side of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from rootstock.common.distillation.calibration import calibrate_by_labels
from rootstock.common.errors import SchemaError, TransplantError
from rootstock.common.nets.training import in_batches
from tests.benchmarks.harness import experiment, tables
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.harness.goal import Goal, compared
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Budget, Request
from tests.benchmarks.harness.rows import Interval, average, chosen, over
from tests.benchmarks.harness.tables import averaged
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.shared.datasets import Dataset, Lab, Labelled
from tests.benchmarks.papers.transplant import cells, teachers
from tests.benchmarks.papers.transplant.cells import ALL, CEILING, Cell, Setup
from tests.benchmarks.papers.transplant.material import Material, features

BUDGETS = (Budget("quick", 1), Budget("default", 3))
TEACHERS, CENTRAL = "teachers", "central"
METHODS = ("identity", "auto", CEILING)
LONGER = (1, 2)
"""Times the labs' epochs that the central net is trained for; the better is chosen on held
images."""
_NAMES = {
    TEACHERS: "every category's own net",
    "identity": "joined without an adapter",
    "auto": "joined by `auto`",
    CEILING: "joined, learned from all images",
    CENTRAL: "one net, trained centrally",
}


@dataclass(frozen=True)
class Row:
    """One line of `bench which --json`: the share of test images of the right category."""

    data: str
    method: str
    samples: int
    """Of every join; 0 none, −1 all of the lab's training images."""
    seed: int
    accuracy: float
    """Percent, of the net's outputs as they are."""
    calibrated: float | None
    """Percent, with scale and bias of each category's output set by its lab."""
    by_category: float
    """Percent, mean over categories, calibrated where there is a calibration."""
    images: int


Answers = dict[tuple[str, int], tuple[Tensor, Tensor]]
"""Outputs (N) for all test images, and these calibrated, by method and samples."""


@dataclass(frozen=True)
class Which(experiment.Experiment[Budget, Row]):
    setup: Setup
    categories: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"which-{self.setup.data}"

    @property
    def title(self) -> str:
        count = len(self.categories)
        return f"Which of {count}: the grown net as one classifier ({self.setup.data})"

    def words(self) -> list[str]:
        setup = self.setup
        samples = ",".join(map(str, setup.samples))
        methods = ",".join(setup.methods)
        return ["which", f"--data {setup.data}", f"--samples {samples}", f"--methods {methods}"]

    def measure(self, run: Workers) -> list[Row]:
        """Return all rows, in the order of seeds and methods."""
        setup, seeds = self.setup, self.request.seeds
        dataset = datasets.load(setup.data, setup.folders)
        run.fill("common starts", cells.prepare, [Cell(setup, "", seed) for seed in seeds])
        each = [Cell(setup, category, seed) for seed in seeds for category in self.categories]
        run.fill("teachers", cells.prepare, each)
        run.fill("central nets", train_centrally, [(c, x) for c in self._starts() for x in LONGER])
        found = run.run("joins", answers, each)
        test = tested(dataset, self.categories)
        rows: list[Row] = []
        for number, cell in enumerate(self._starts()):
            own = found[number * len(self.categories) :][: len(self.categories)]
            rows += combined(own, test.classes_N, setup.data, cell.seed)
        return rows + run.run("central nets tested", centrally, self._starts())

    def _starts(self) -> list[Cell]:
        """Return a cell a seed: what is trained centrally begins where the labs do."""
        return [Cell(self.setup, "", seed) for seed in self.request.seeds]

    def heading(self, rows: Sequence[Row]) -> str:
        """Say what the table at a terminal shows."""
        return f"{self.title}\nright answers in %, as nets say it and calibrated by their labs"

    def grid(self, rows: Sequence[Row]) -> list[list[str]]:
        """Return accuracies by what answers."""
        by: dict[str, tables.Key] = {
            "what answers": lambda row: _NAMES[row.method],
            "samples": lambda row: "all" if row.samples == ALL else row.samples or "none",
        }
        columns = {
            "right": averaged("accuracy"),
            "calibrated": averaged("calibrated"),
            "mean of categories": averaged("by_category"),
        }
        return tables.grid(rows, by, columns)

    def paragraphs(self, rows: Sequence[Row], seconds: float) -> Iterator[str]:
        """Say what was asked, and show what came of it."""
        names = ", ".join(self.categories)
        yield (
            f"Percent of {rows[0].images} test images whose most probable category is the right "
            f"one, of {names}; {over(rows)}; as nets say it, and with scale and bias of each "
            f"category's output set by its lab. The net was founded by {self.categories[0]}, whose "
            f"own answers are its teacher's in every line. {round(seconds)} s with teachers in the "
            "cache or trained."
        )
        yield (
            "The central net is of the same architecture and start, with one output a category, "
            "trained on the images that labs have of their categories as the labs train (settings, "
            "augmentation, frozen layers), as long or twice as long; which of these was chosen on "
            "the images that labs hold back. It learns how frequent "
            "categories are, which the test shares and labs' calibrations, of one side against the "
            "other, do not say: hence the mean of categories beside. Images that a lab calibrates "
            "on may be in the rest of others, the founder among them."
        )
        yield tables.markdown(self.grid(rows))

    def goals(self, rows: Sequence[Row]) -> list[Goal]:
        """Hold the net that labs refined against the central one."""
        goals = []
        for what, ours in (("right answers", "calibrated"), ("mean of categories", "by_category")):
            refined = average(chosen(rows, method=CEILING), ours)
            theirs = "accuracy" if ours == "calibrated" else ours
            central = average(chosen(rows, method=CENTRAL), theirs)
            if isinstance(refined, Interval) and isinstance(central, Interval):
                told = f"{self.setup.data}: {what} below central training, learned from all images"
                goals.append(compared(told, "–", "≤ 5 points", central.mean - refined.mean))
        return goals

    def pictures(self, rows: Sequence[Row], run: Workers) -> Mapping[str, Figure]:
        """Draw nothing: five numbers are a table."""
        return {}


def requested(
    request: Request[Budget], data: str, *, samples: Sequence[int] = (), methods: Sequence[str] = ()
) -> Which:
    """Check what was asked for and fill in what was left out."""
    datasets.require(data)
    if unknown := [method for method in methods if method not in METHODS]:
        raise SchemaError(f"bench which has no method '{unknown[0]}'; it has {', '.join(METHODS)}")
    if any(count < 0 or count > 1000 for count in samples):
        raise SchemaError(f"--samples {list(samples)}: numbers from 0 to 1000 are possible")
    quick = request.budget.name == "quick"
    setup = Setup(
        request.folders, 2, data, tuple(samples) or (0, 10), tuple(methods) or METHODS, quick=quick
    )
    return Which(request, setup, datasets.SIMILAR[data])


def tested(dataset: Dataset, categories: Sequence[str]) -> Labelled:
    """Return the test images of these categories; classes are indices into them."""
    wanted = torch.tensor([dataset.classes.index(category) for category in categories])
    test = dataset.test.at(torch.nonzero(torch.isin(dataset.test.classes_N, wanted)).flatten())
    return replace(test, classes_N=(test.classes_N[:, None] == wanted).int().argmax(1))


def answers(cell: Cell) -> Answers:
    """Return what a category's joins say to all test images; its own net's, where it founded."""
    lab = cell.lab()
    material = cells.material_of(cell)
    test = tested(lab.dataset, datasets.SIMILAR[cell.setup.data])
    x_NCHW = features(material.category_module, test.images_NCSS)
    own = _answer(material, material.problem.teacher_task, x_NCHW)
    found: Answers = {(TEACHERS, 0): own}
    shape = cells.adapters(cell.setup, "auto")[0]  # the product's, of every method
    for method, samples in dict.fromkeys((method, n) for method, _, n in cells.plan(cell)):
        if cell.category == lab.dataset.similar[0]:
            found[method, samples] = own
            continue
        with suppress(TransplantError):  # a method without an answer is left out of the table
            adapter = cells.join(method, shape, samples, cell, material)
            net = nn.Sequential(adapter.eval(), material.problem.student_task)
            found[method, samples] = _answer(material, net, x_NCHW)
    return found


def _answer(material: Material, net: nn.Module, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    held = material.held
    y_N = in_batches(net, x_NCHW).flatten()
    calibration = calibrate_by_labels(in_batches(net, held.features_NCHW).flatten(), held.labels_N)
    return y_N, calibration.apply(y_N)


def combined(found: Sequence[Answers], classes_N: Tensor, data: str, seed: int) -> list[Row]:
    """Return how often the most probable category is right, by method and samples."""
    rows = []
    for method, samples in found[0]:
        if not all((method, samples) in one for one in found):
            continue
        said, calibrated = (
            torch.stack([one[method, samples][which] for one in found], dim=1) for which in (0, 1)
        )
        rows.append(
            Row(
                data,
                method,
                samples,
                seed,
                accuracy=_right(said, classes_N),
                calibrated=_right(calibrated, classes_N),
                by_category=_by_category(calibrated, classes_N),
                images=len(classes_N),
            )
        )
    return rows


def centrally(cell: Cell) -> Row:
    """Return how often a net trained centrally is right; its epochs are chosen on held images."""
    lab = cell.lab()
    _, held = _central_images(lab)
    nets = [train_centrally((cell, longer)) for longer in LONGER]
    best = max(nets, key=lambda net: _right(features(net, held.images_NCSS), held.classes_N))
    test = tested(lab.dataset, lab.dataset.similar)
    y_NK = features(best, test.images_NCSS)
    return Row(
        data=lab.dataset.name,
        method=CENTRAL,
        samples=ALL,
        seed=cell.seed,
        accuracy=_right(y_NK, test.classes_N),
        calibrated=None,
        by_category=_by_category(y_NK, test.classes_N),
        images=len(test),
    )


def _right(y_NK: Tensor, classes_N: Tensor) -> float:
    return 100 * float((y_NK.argmax(1) == classes_N).double().mean())


def _by_category(y_NK: Tensor, classes_N: Tensor) -> float:
    classes = sorted(set(classes_N.tolist()))
    shown = [classes_N == one for one in classes]
    return sum(_right(y_NK[one], classes_N[one]) for one in shown) / len(shown)


def _central_images(lab: Lab) -> tuple[Labelled, Labelled]:
    """Return labs' images of their own categories, to train on and held back."""
    parts: list[tuple[Labelled, Labelled]] = []
    for number, category in enumerate(lab.dataset.similar):
        split = replace(lab, category=category).split
        own = [
            Labelled(
                part.images_NCSS[part.classes_N == 1],
                torch.full((int(part.classes_N.sum()),), number),
            )
            for part in (split.training, split.held)
        ]
        parts.append((own[0], own[1]))
    return _together([part[0] for part in parts]), _together([part[1] for part in parts])


def _together(parts: Sequence[Labelled]) -> Labelled:
    return Labelled(
        torch.cat([part.images_NCSS for part in parts]),
        torch.cat([part.classes_N for part in parts]),
    )


def train_centrally(asked: tuple[Cell, int]) -> nn.Sequential:
    """Return one net of all categories, from the cache if it is there."""
    cell, longer = asked
    lab = cell.lab()
    dataset = lab.dataset
    _, training = teachers.SETTINGS[dataset.name]
    training = training.model_copy(update={"epochs": longer * training.epochs, "seed": cell.seed})
    start = teachers.common_start(lab)
    head = teachers.classifier(
        start.task_modules[teachers.TASK.name], len(dataset.similar), cell.seed
    )
    net = nn.Sequential(start.category_module, head)
    config = teachers.TeacherConfig(
        data=dataset.name,
        architecture=dataset.architecture,
        category=f"which of {len(dataset.similar)}",
        start_epochs=teachers.SETTINGS[dataset.name][0],
        training=training,
        seed=cell.seed,
        start=dataset.start,
    )

    def train() -> None:
        images, _ = _central_images(lab)
        teachers.learn_classes(
            start.category_module, head, images, training, mirror=dataset.mirror, seed=cell.seed
        )

    cached(lab.folders, config, {"f/": start.category_module, "g/": head}, train)
    return net.eval()
