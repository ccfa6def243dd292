"""Zero or few samples, taught by the teacher on images made for it: methods `dream` and `auto`.

1. `auto` measures the join as it is and at the start (the closed form), on drawn features,
   synthetic images and samples, and stops where the teacher can hardly tell the difference.
2. Else dream images, if the lab shipped its statistics (`common.distillation.auto.dream`).
   `auto` leaves out dreams of large images where features can be drawn from shipped moments
   (`common.nets.feature_moments`), which costs no step. Which of the two carries further depends
   on the nets: digits (4 onto 0, two seeds) draws 1 to 44% error, dreams 2 to 46, draws less in
   all six cases tried; CIFAR-10 (4 onto dog, one seed) draws 19.9, dreams 16.4; both together are
   as good as the better one. EfficientNet at 128 pixels (VOC's cat onto dog) draws 17, dreams 42.
3. Gather features: drawn ones, and those of views of dreams, of the samples' own images and of
   synthetic ones; let the teacher answer, and keep a part of it apart to judge by.
4. Learn: y_S is held to y_T on these, and the samples' labels have their say as well.
5. `auto` keeps what was learned unless the start is closer to the teacher on what was kept apart.

Shapes: N images, C/H/W of an image.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from rootstock.common.distillation.auto.dream import Dream
from rootstock.common.distillation.auto.images import dead_leaves, strong_views
from rootstock.common.distillation.auto.imitation import Answers, ImitationPenalty
from rootstock.common.distillation.settings import MethodSettings
from rootstock.common.distillation.solvers.back_distillation import BackDistillation
from rootstock.common.distillation.solvers.learning import Learning, StepRecord
from rootstock.common.distillation.transplant import Transplant, starting_adapter
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.feature_moments import FeatureMoments
from rootstock.common.nets.training import device_of, in_batches, prefixed, under

_MEASURED = 512
"""Features at most, as many of each kind, that `auto` measures a join on before it learns: each
passes through g three times."""


class AutoLearning(Learning):
    """An adapter that learns what the teacher says to views of dreams, samples, synthetic images.

    There must be something to show the teacher: a source to dream from, moments, f, or samples.
    Step records of a dream have its class loss as task loss and its statistics loss as distillation
    loss. `thrifty`: the join is measured first and learning left out where it is good enough,
    synthetic images and drawn features join in, and a dream that fails is left out rather than an
    error. The report also says how many features were `drawn`, and how far y_S was from y_T, in
    units of y_T's spread: `no_adapter_distance` and `start_distance` on what `auto` measures first,
    `judged_start_distance` and `judged_learned_distance` on what was kept apart.
    """

    def __init__(self, transplant: Transplant, settings: MethodSettings, *, thrifty: bool) -> None:
        self._transplant, self._settings, self._thrifty = transplant, settings, thrifty
        self._left_out = (TransplantError,) if thrifty else ()
        self._without = ""
        self._dream = self._begun_dream()
        super().__init__(*self._started())
        self._start = self._adapter
        self._learning: BackDistillation | None = None
        self._judged: Answers | None = None
        self._kept: tuple[list[Tensor], Tensor] | None = None
        good = self._good_as_it_is() if thrifty else None
        self._good_enough = good is not None
        if good is not None:
            self._adapter = good
        elif self._dream is None:
            self._learning = self._begun()

    @property
    def adapter(self) -> Adapter:
        """The adapter as it is; the start, while a dream lasts."""
        if self._learning is None or self._learning.done:
            return self._adapter
        return self._learning.adapter

    @property
    def without(self) -> str:
        """Why `auto` began without the closed form; empty where it did not."""
        return self._without

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self._good_enough or (self._learning is not None and self._learning.done)

    @property
    def steps(self) -> int:
        """Steps of the dream, if there is one, and of learning; 0 where the join is good enough."""
        if self._good_enough:
            return 0
        dream = 0 if self._dream is None else self._settings.dream.steps
        return dream + self._settings.teaching.steps

    def step(self) -> StepRecord:
        """Take one step of the dream, or of learning."""
        if self._learning is not None:
            learned = self._learning.step()
            if self._learning.done:
                self._settle()
            before = 0 if self._dream is None else self._settings.dream.steps
            return replace(learned, step=before + learned.step)
        if self._dream is None or self._good_enough:
            raise TransplantError("this adapter is good enough as it is; it takes no steps")
        dreamed = None
        with suppress(*self._left_out):
            dreamed = self._dream.step()
        if dreamed is None:
            self._dream = None
            self._learning = self._begun()
            return self.step()
        if self._dream.done:
            self._learning = self._begun()
        return StepRecord(dreamed.step, dreamed.loss, dreamed.class_loss, dreamed.statistics_loss)

    def state(self) -> dict[str, Tensor]:
        """Return all that changes, as plain tensors."""
        if self._good_enough:
            return Learning(self._adapter).state()
        dream = {} if self._dream is None else self._dream.state()
        learning = {} if self._learning is None else self._learning.state()
        return prefixed("dream/", dream) | prefixed("learning/", learning)

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Carry on from a state; return the same object.

        What the state's run decided holds, also where this machine would have decided otherwise. A
        state that holds a finished dream and nothing else begins to learn from that dream.
        """
        dream, learning = under("dream/", state), under("learning/", state)
        if not dream and not learning:
            solved = Learning(copy.deepcopy(self._start)).restore(state)
            self._adapter, self._good_enough, self._learning = solved.adapter, True, None
            return self
        self._adapter, self._good_enough, self._learning = self._start, False, None
        if learning and not dream:
            self._dream = None  # the state's run had none, or gave it up
        if self._dream is None and dream:
            raise TransplantError(
                "the state holds a dream and there is nothing to dream from; start anew, or with "
                "the statistics that it was saved with"
            )
        if self._dream is not None:
            self._dream.restore(dream)
        if self._dream is None or self._dream.done:
            self._learning = self._begun()
            if learning:
                self._learning.restore(learning)
            if self._learning.done:
                self._settle()
        return self

    @property
    def _moments(self) -> FeatureMoments | None:
        """What features are drawn from; None where none are."""
        wanted = self._thrifty and self._settings.teaching.drawn > 0
        return self._transplant.moments if wanted else None

    def _begun_dream(self) -> Dream | None:
        """Return the dream that comes first; None where `auto` has to do without."""
        source, settings = self._transplant.source, self._settings.dream
        if source is None:
            if self._thrifty:
                return None
            raise TransplantError(
                "method 'dream' needs the statistics that a lab ships and its category module; "
                "ask the lab to switch channel means and variances on"
            )
        _, height, width = source.input_shape
        if self._moments is not None and height * width > settings.beside_draws:
            return None
        with suppress(*self._left_out):
            return Dream(source, settings)
        return None

    def _started(self) -> tuple[Adapter, dict[str, float]]:
        """Return the start; the identity where `auto` finds no answer to the closed form."""
        start = self._settings.start or "closed-form"
        try:
            return starting_adapter(self._transplant, start, self._settings)
        except self._left_out as error:  # such as a layer of g that has no adjoint
            self._without = f"the {start} start: {str(error).partition(';')[0]}"
        return starting_adapter(self._transplant, "identity", self._settings)

    def _begun(self) -> BackDistillation:
        transplant, teaching = self._transplant, self._settings.teaching
        generator = torch.Generator().manual_seed(self._settings.learning.seed)
        answers = Answers.to(transplant.problem, self._features(generator))
        answers, self._judged = answers.parted(teaching.judged, generator)
        settings = self._settings.learning
        return BackDistillation(
            transplant.problem,
            copy.deepcopy(self._adapter),
            transplant.samples,
            settings.model_copy(update={"distillation": 0.0, "steps": teaching.steps}),
            ImitationPenalty(
                transplant.problem, answers, weight=teaching.weight, batch_size=teaching.batch_size
            ),
        )

    def _settle(self) -> None:
        """Take what was learned, unless `auto` finds that the start is closer to the teacher."""
        assert self._learning is not None  # noqa: S101  # called when it is done
        assert self._judged is not None  # noqa: S101
        student_task = self._transplant.problem.student_task
        both = (self._learning.adapter, self._adapter)
        learned, started = (self._judged.distance(a, student_task) for a in both)
        self._report |= {"judged_learned_distance": learned, "judged_start_distance": started}
        if not self._thrifty or learned <= started:
            self._adapter = self._learning.adapter

    def _good_as_it_is(self) -> Adapter | None:
        """Return no learning or the start, if the teacher can hardly tell the difference."""
        transplant, teaching = self._transplant, self._settings.teaching
        generator = torch.Generator().manual_seed(self._settings.learning.seed)
        shown = self._shown(generator)
        # Learning begins with the same images: they need not pass through f again.
        self._kept = shown, generator.get_state()
        if not shown:
            return None
        some = torch.cat([part[: _MEASURED // len(shown)] for part in shown])
        judged = Answers.to(transplant.problem, some)
        plain, _ = starting_adapter(transplant, "identity", self._settings)
        for name, adapter in (("no_adapter", plain.eval()), ("start", self._start)):
            distance = judged.distance(adapter, transplant.problem.student_task)
            self._report[f"{name}_distance"] = distance
            if distance <= teaching.good_enough:
                return adapter
        return None

    def _features(self, generator: torch.Generator) -> Tensor:
        if self._kept is None:
            shown = self._shown(generator)
        else:
            (shown, after), self._kept = self._kept, None
            generator.set_state(after)
        if self._dream is not None and self._converged(self._dream):
            assert self._transplant.source is not None  # noqa: S101  # what was dreamed from
            f, count = self._transplant.source.category_module, self._settings.teaching.dream_views
            shown.append(self._views(f, self._dream.images(), count, generator))
        if not shown:
            raise TransplantError(
                "there is nothing to show the teacher: give samples, or the category module and "
                "the statistics that its lab ships"
            )
        return torch.cat([part.to(shown[0]) for part in shown])

    def _shown(self, generator: torch.Generator) -> list[Tensor]:
        """Return features that need no dream: of samples, drawn, of views, of synthetic images."""
        transplant, teaching = self._transplant, self._settings.teaching
        f, shape = transplant.category_module, transplant.image_shape
        images_NCHW = transplant.images_NCHW
        shown = [] if transplant.samples is None else [transplant.samples.features_NCHW]
        if self._moments is not None:
            count = min(teaching.drawn, max(1, self._room))
            drawn_NCHW = self._moments.draw(count, generator)
            shown.append(drawn_NCHW.to(device_of(transplant.problem.student_task)))
            self._report["drawn"] = float(count)
        if f is not None and images_NCHW is not None:
            shown.append(self._views(f, images_NCHW, teaching.sample_views, generator))
        if f is not None and self._thrifty and shape is not None and teaching.synthetic > 0:
            leaves_NCHW = dead_leaves(teaching.synthetic, shape, generator)
            shown.append(self._views(f, leaves_NCHW, teaching.synthetic_views, generator))
        return [part.to(shown[0]) for part in shown]

    def _views(
        self,
        category_module: nn.Sequential,
        images_NCHW: Tensor,
        count: int,
        generator: torch.Generator,
    ) -> Tensor:
        images_NCHW = images_NCHW[: max(1, self._room)]
        count = min(count, max(0, self._room - len(images_NCHW)))
        views_NCHW = strong_views(
            images_NCHW, count, mirror=self._transplant.mirror, generator=generator
        )
        together_NCHW = torch.cat((images_NCHW.to(views_NCHW), views_NCHW))
        return in_batches(category_module, together_NCHW.to(device_of(category_module)))

    @cached_property
    def _room(self) -> int:
        """Return how many features of a kind are kept: of samples, synthetic, drawn, dreamed."""
        problem = self._transplant.problem
        feature = torch.zeros(1, *problem.feature_shape)
        answer = in_batches(problem.teacher_task, feature)  # of a segmentation, a map
        each = 4 * (feature.numel() + answer.numel())
        return self._settings.teaching.max_feature_bytes // each // 4

    def _converged(self, dream: Dream) -> bool:
        with suppress(*self._left_out):
            dream.require_converged()
            return True
        return False
