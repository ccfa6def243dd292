"""Learn on the operator's own samples: a task module on frozen category modules, a further join.

Nothing in the net changes: its category modules, adapters and task modules are frozen, and what is
learned is added as something new. It is signed by the coordinator as a submission of its own, and
merged by the coordinator like any other: under the acceptance policy, one commit after another.

Shapes: N images, C channels of x = f(I), M channels that g takes, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.distillation.problem import Samples, TransplantProblem
from rootstock.common.distillation.settings import BackDistillationSettings, TaskLearningSettings
from rootstock.common.distillation.solvers.back_distillation import BackDistillation
from rootstock.common.distillation.task_module import learn_task_module
from rootstock.common.errors import ConflictError, TransplantError
from rootstock.common.image_files.decoding import GreyRange
from rootstock.common.image_files.reading import OPTION, ImageReader
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import (
    build_category_module,
    feature_shape,
    image_form,
    takes_signed,
)
from rootstock.common.nets.graph import NetTree
from rootstock.common.nets.spec import AdapterSpec, TaskSpec
from rootstock.common.nets.training import in_batches
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.merges.own_samples import OwnSamples, log_doubt, read_own
from rootstock.coordinator.merges.result import LearnedTask, OperatorJoin
from rootstock.coordinator.net.compose import (
    category_module_of,
    loaded,
    loaded_task_module,
    task_module_of,
    task_of,
)

NO_ADAPTER = "no adapter"
LEARNED = "learned"


class Learner:
    """Learns from one net version on samples in a folder: see `merges.own_samples`."""

    def __init__(
        self,
        store: BlobStore,
        tree: NetTree,
        folder: Path,
        grey_range: GreyRange | None = None,
        note: Callable[[str], None] = log_doubt,
    ) -> None:
        self._store = store
        self._tree = tree
        self._folder = folder
        self._grey_range = grey_range
        self._note = note

    def task(
        self,
        name: str,
        categories: list[str],
        begin: BlobEntry | None,
        source: str | None,
        settings: TaskLearningSettings,
    ) -> LearnedTask:
        """Learn a new task module on what categories of the net, each with samples, give.

        It begins with the weights `begin`, of the net's architecture; or `source` is fine-tuned,
        another task's module, to which categories keep their adapters.
        """
        tree = self._tree
        if name in tree.task_modules:
            raise ConflictError(
                f"the net already has a task module '{name}'; a net version never changes what it "
                "holds: name the new task module differently"
            )
        if source is not None:
            g = self._task_module(source)
        elif begin is not None:
            new = TaskSpec(name="new")
            g = loaded_task_module(self._store, tree.architecture, new, begin)
        else:
            raise TransplantError("there are no weights to begin with; name a task to fine-tune")
        adapters = {
            category: None if source is None else tree.edge(category, source).adapter
            for category in categories
        }
        samples = {category: self._own(category) for category in categories}
        features = {
            category: self._features(category, adapters[category], samples[category].images_NCHW)
            for category in categories
        }
        learning = {
            category: own.part(features[category], judging=False)
            for category, own in samples.items()
        }
        for category, part in learning.items():
            _require_fit(g, category, part.features_NCHW)
        learned = learn_task_module(g, learning, settings)
        blob = put_tensors(self._store, learned.state_dict())
        joins = {
            category: _judged(
                learned,
                blob,
                adapters[category],
                NO_ADAPTER if source is None else f"as for {source}",
                own.part(features[category], judging=True),
                len(learning[category].labels_N),
            )
            for category, own in samples.items()
        }
        return LearnedTask(blob=blob, joins=joins)

    def connection(
        self, category: str, task: str, settings: BackDistillationSettings
    ) -> OperatorJoin:
        """Choose the best join of a category and a task that are in the net and not joined.

        Tried are no adapter, the adapters that join the category to other tasks (task modules of
        one teacher net take the same features), and one that is learned on the samples.
        """
        tree = self._tree
        if any((edge.category, edge.task) == (category, task) for edge in tree.edges):
            raise ConflictError(f"category '{category}' is joined to task '{task}' already")
        g, head = self._task_module(task), tree.task_modules[task]
        samples = self._own(category)
        plain = samples.part(self._features(category, None, samples.images_NCHW), judging=False)
        candidates: list[tuple[str, AdapterEntry | None, int]] = [
            (NO_ADAPTER, None, 0),
            *(
                (f"as for {edge.task}", edge.adapter, 0)
                for edge in tree.edges
                if edge.category == category and edge.adapter is not None
            ),
            (LEARNED, self._learned(task, g, plain, settings), len(plain.labels_N)),
        ]
        judged: list[OperatorJoin] = []
        for how, adapter, learned_from in candidates:
            features = self._features(category, adapter, samples.images_NCHW)
            if tuple(features.shape[1:]) == feature_shape(head.architecture):
                part = samples.part(features, judging=True)
                judged.append(_judged(g, head.blob, adapter, how, part, learned_from))
        return min(judged, key=lambda join: join.error)  # the first, and simplest, of equals

    def _learned(
        self, task: str, g: nn.Sequential, samples: Samples, settings: BackDistillationSettings
    ) -> AdapterEntry:
        """Learn an adapter by its task loss alone (direct-learn): there is no teacher."""
        _, channels, *size = samples.features_NCHW.shape
        architecture = self._tree.task_modules[task].architecture
        wanted = feature_shape(architecture)
        if tuple(size) != wanted[1:]:
            raise TransplantError(
                f"the category module gives maps of {size[0]}×{size[1]}, the task module of "
                f"'{task}' takes {wanted[1]}×{wanted[2]}; an adapter keeps the size"
            )
        spec = AdapterSpec(
            in_channels=channels,
            out_channels=wanted[0],
            kernel=3,
            signed=takes_signed(architecture),
        )
        adapter = Adapter(spec).identity_start()
        problem = TransplantProblem(g, g, (channels, size[0], size[1]))
        learning = BackDistillation(
            problem, adapter, samples, settings.model_copy(update={"distillation": 0.0})
        )
        while not learning.done:
            learning.step()
        weights = learning.adapter.state_dict()
        return AdapterEntry(spec=spec, blob=put_tensors(self._store, weights))

    def _own(self, category: str) -> OwnSamples:
        module = category_module_of(self._tree, category)
        form, reader = image_form(module.architecture), ImageReader(self._grey_range, OPTION)
        return read_own(self._folder, category, form, reader, self._note)

    def _features(self, category: str, adapter: AdapterEntry | None, images_NCHW: Tensor) -> Tensor:
        """Return h(f(I)), or f(I)."""
        module = self._tree.category_modules[category]
        f = loaded(self._store, build_category_module(module.architecture), module.blob)
        if adapter is None:
            return in_batches(f, images_NCHW)
        h = loaded(self._store, Adapter(adapter.spec), adapter.blob)
        return in_batches(nn.Sequential(f, h), images_NCHW)

    def _task_module(self, task: str) -> nn.Sequential:
        spec = task_of(self._tree, task)
        if spec.kind != TaskSpec(name=task).kind:
            raise TransplantError(
                f"task '{task}' is of kind {spec.kind}; samples in yes/no folders tell only "
                "whether an image shows a category"
            )
        return task_module_of(self._tree, self._store, task)


def _require_fit(g: nn.Sequential, category: str, features_NCHW: Tensor) -> None:
    try:
        with torch.inference_mode():
            g(features_NCHW[:1])
    except RuntimeError as error:
        raise TransplantError(
            f"features of '{category}', {tuple(features_NCHW.shape[1:])}, do not fit the task "
            "module; learn it on categories of the net's architecture"
        ) from error


def _judged(
    g: nn.Sequential,
    blob: BlobEntry,
    adapter: AdapterEntry | None,
    how: str,
    judging: Samples,
    learned_from: int,
) -> OperatorJoin:
    y_N = in_batches(g, judging.features_NCHW).flatten()
    wrong = (y_N > 0) != (judging.labels_N > 0.5)
    return OperatorJoin(
        task_module=blob.digest,
        adapter=adapter,
        how=how,
        error=100.0 * float(wrong.float().mean()),
        learned_from=learned_from,
        judged_on=len(y_N),
    )
