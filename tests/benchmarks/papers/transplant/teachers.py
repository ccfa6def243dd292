"""Teacher nets of the experiments, trained once and kept by the digest of what decides them.

Labs train as the agents do: the supervised recipe, from common initial weights. Where a data set
has public images, those weights come from a net that tells their classes apart; the paper's labs
began with ImageNet's in the same way.

Shapes: N images, C channels of a layer, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.settings import AugmentConfig
from rootstock.common.documents import Document
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.coordinator.plan.start import start_from
from rootstock.site_agent.config import StatisticsConfig, TrainingConfig
from rootstock.site_agent.data.images import LabData, batch_of
from rootstock.site_agent.recipes.compatible import CompatibleRecipe, FrozenHeads
from rootstock.site_agent.recipes.frozen import KeptFeatures, Parts
from rootstock.site_agent.recipes.interface import Recipe, Teacher, TrainingRun
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.teacher.statistics import statistics
from tests.benchmarks.harness.cache import cached, kept
from tests.benchmarks.harness.request import Folders
from tests.benchmarks.harness.training import adamw, epochs
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.shared.datasets import PRETRAINED, Dataset, Lab, Labelled

TASK = TaskSpec(name="classification")
FORMAT = 2
"""Raised when teachers are trained otherwise with the same configuration."""
START = "cifar10"
"""Whose public images common starts are trained on."""


class TeacherConfig(Document):
    """What decides a teacher's weights."""

    data: str
    architecture: ArchitectureSpec
    category: str
    """"" is the common start."""
    start_epochs: int
    """Of the common start on public images; 0: the data set's own start."""
    training: TrainingConfig
    seed: int
    start: str = Field(default="seed", exclude_if=lambda start: start == "seed")
    """The data set's own, as in a plan."""
    below: str = Field(default="", exclude_if=lambda below: not below)
    """The auxiliary heads that it was trained below, if any."""
    images: int = Field(default=0, exclude_if=lambda images: images == 0)
    """Of each side; 0: all that the lab has."""
    format: int = FORMAT


@dataclass(frozen=True)
class Below:
    """Frozen heads that a teacher is trained below: recipe `compatible`."""

    name: str
    """Stands for their weights in the cache; the seed does the rest."""
    heads: FrozenHeads


AUGMENT = AugmentConfig(shift=0.1, zoom=0.1, colour=0.1)
SMALL = AugmentConfig(shift=0.1, zoom=0.2, rotation=10, colour=0.25)
START_EPOCHS = 12
LEARNING_RATE = 3e-3
SETTINGS: dict[str, tuple[int, TrainingConfig]] = {
    "cifar10": (
        START_EPOCHS,
        TrainingConfig(epochs=12, batch_size=64, augment=AUGMENT, learning_rate=LEARNING_RATE),
    ),
    "voc-animals": (
        START_EPOCHS,
        TrainingConfig(epochs=40, augment=SMALL, learning_rate=LEARNING_RATE),
    ),
    PRETRAINED: (
        0,
        TrainingConfig(
            epochs=30,
            augment=SMALL,
            learning_rate=3e-3,
            weight_decay=1e-2,
            frozen="flatten",
            views=2,
            frozen_statistics=True,
        ),
    ),
    "digits": (0, TrainingConfig(epochs=30)),
}
"""Epochs of the common start, and how labs train. Chosen on images that labs hold back."""
FEW = {"epochs": 200, "views": 16}
"""What a lab with a number of images changes: an epoch is a step or two, and views are cheap."""


def trained(lab: Lab, *, longer: int = 1, below: Below | None = None) -> Teacher:
    """Return a lab's teacher, from the cache if it is there.

    Parameters
    ----------
    lab
        Its seed is the common start's and the training's.
    longer
        Multiplies its epochs.
    below
        Auxiliary heads; None: recipe `supervised`.
    """
    config = _config(lab, longer, below)
    teacher = common_start(lab)

    def train() -> None:
        images = lab.split.training.as_set()
        data = LabData(images, images, images, mirror=lab.dataset.mirror)
        folder = lab.folders.cache / f"{config.content_digest()}.training"
        folder.mkdir(parents=True, exist_ok=True)
        recipe: Recipe
        if below is None:
            recipe = SupervisedRecipe(config.training, torch.device("cpu"))
        else:
            recipe = CompatibleRecipe(config.training, torch.device("cpu"), below.heads)
        recipe.train(teacher, TrainingRun(data, folder))

    return _cached(lab.folders, config, teacher, train)


def statistics_of(lab: Lab, teacher: Teacher, below: Below | None = None) -> dict[str, Tensor]:
    """Return what the lab's agent would ship of its teacher's statistics, kept as the teacher is.

    They are of f's output as well, and so of the split.
    """
    split = lab.dataset.architecture.split
    measured = StatisticsConfig().content_digest()[:8]
    name = f"{_config(lab, 1, below).content_digest()}-{split}-{measured}-statistics"
    return kept(lab.folders, name, lambda: named_statistics(teacher, lab.split.training))


def named_statistics(teacher: Teacher, training: Labelled) -> dict[str, Tensor]:
    """Measure a net as the lab's agent would."""
    return statistics(teacher, training.as_set(), StatisticsConfig())


def _config(lab: Lab, longer: int, below: Below | None) -> TeacherConfig:
    dataset, seed = lab.dataset, lab.seed
    start_epochs, training = SETTINGS[dataset.name]
    if dataset.images:
        training = training.model_copy(update=FEW)
    training = training.model_copy(update={"epochs": longer * training.epochs})
    return TeacherConfig(
        data=dataset.name,
        architecture=_unsplit(dataset.architecture),
        category=lab.category,
        start_epochs=start_epochs,
        training=training.model_copy(update={"seed": seed}),
        seed=seed,
        start=dataset.start,
        below="" if below is None else below.name,
        images=dataset.images,
    )


def common_start(lab: Lab) -> Teacher:
    """Return the plan's common initial weights, the same for every category."""
    dataset, seed = lab.dataset, lab.seed
    start_epochs, _ = SETTINGS[dataset.name]
    category_module, task_modules = initial_modules(dataset.architecture, [TASK], seed)
    teacher = Teacher(category_module, task_modules)
    if start_epochs == 0:
        start_from(dataset.start, None, dataset.architecture, category_module, task_modules)
        return teacher
    config = TeacherConfig(
        data=START,
        architecture=_unsplit(dataset.architecture),
        category="",
        start_epochs=start_epochs,
        training=TrainingConfig(
            epochs=start_epochs, batch_size=64, augment=AUGMENT, learning_rate=LEARNING_RATE
        ),
        seed=seed,
    )

    def train() -> None:
        _pretrain(teacher, datasets.load(START, lab.folders), config.training, seed)

    return _cached(lab.folders, config, teacher, train)


def _pretrain(teacher: Teacher, dataset: Dataset, config: TrainingConfig, seed: int) -> None:
    """Tell the classes of public images apart; the net keeps all but the classifier itself."""
    assert dataset.public is not None  # START's has them
    head = classifier(teacher.task_modules[TASK.name], len(dataset.classes), seed)
    learn_classes(
        teacher.category_module, head, dataset.public, config, mirror=dataset.mirror, seed=seed
    )


def classifier(task_module: nn.Sequential, classes: int, seed: int) -> nn.Sequential:
    """Return a task module's own layers, ended with an output a class."""
    *below, (name, last) = task_module.named_children()
    assert isinstance(last, nn.Linear)  # every architecture here ends so
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ending = (name, nn.Linear(last.in_features, classes))
        return nn.Sequential(OrderedDict([*below, ending]))


def learn_classes(
    category_module: nn.Sequential,
    head: nn.Sequential,
    images: Labelled,
    config: TrainingConfig,
    *,
    mirror: bool,
    seed: int,
) -> None:
    """Train a net to tell classes apart, as labs train theirs: what they freeze stays."""
    net = nn.Sequential(category_module, head).to(memory_format=torch.channels_last)
    parts = Parts.of(Teacher(category_module, {TASK.name: head}), config.frozen)
    still = parts.freeze(statistics=config.frozen_statistics)
    labelled = images.as_set()
    data = LabData(labelled, labelled, labelled, mirror=mirror)
    for layer in still:
        layer.eval()
    views = None
    if config.views:
        views = KeptFeatures(parts, TrainingRun(data, Path()), config, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    order = epochs(len(images), config.batch_size, generator)

    def loss(_: int) -> Tensor:
        for layer in still:
            layer.eval()
        chosen = next(order)
        if views is None:
            batch = batch_of(data, chosen, config.augment, generator)
            features = parts.lower(batch.x_NCHW.to(memory_format=torch.channels_last))
        else:
            features, batch = views.batch(chosen, generator)
        (x_NCHW,) = features.values()
        y_NK = parts.above[TASK.name](parts.features(x_NCHW))
        return F.cross_entropy(y_NK, batch.labels_N.long())

    adamw(
        [net],
        loss,
        steps=config.epochs * (len(images) // config.batch_size),
        rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=seed,
    )
    net.eval()


def _cached(
    folders: Folders, config: TeacherConfig, teacher: Teacher, train: Callable[[], None]
) -> Teacher:
    # Layers have names of their own across f and g, so a net is kept whatever its split.
    both = nn.ModuleList((teacher.category_module, teacher.task_modules[TASK.name]))
    layers = {f"{name}.": layer for part in both for name, layer in part.named_children()}
    cached(folders, config, layers, train)
    both.eval()
    return teacher


def _unsplit(architecture: ArchitectureSpec) -> ArchitectureSpec:
    """Name the whole net: its weights do not depend on where it splits."""
    return architecture.model_copy(update={"split": "none"})
