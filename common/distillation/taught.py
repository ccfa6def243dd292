"""Zero or few samples, taught by the teacher on images made for it: methods `dream` and `auto`.

1. Dream images, if the lab shipped its statistics (`common.distillation.dream`).
2. Gather images: dreams, the samples' own, synthetic ones; let the teacher answer strong views of
   them, part of which are kept apart to judge by.
3. `auto` measures the join as it is and after the closed form, and stops where that is good enough
   (DESIGN: the least that is good enough).
4. Else learn: y_S is held to y_T on the views, and the samples' labels have their say as well.
5. `auto` keeps the best of what it measured.

Shapes: N images, C/H/W of an image.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from common.distillation.back_distillation import BackDistillation, StepRecord
from common.distillation.dream import Dream
from common.distillation.imitation import Answers, ImitationPenalty, in_batches
from common.distillation.synthetic import dead_leaves
from common.distillation.transplant import MethodSettings, Transplant, starting_adapter
from common.distillation.views import strong_views
from common.errors import TransplantError
from common.nets.adapter import Adapter


class Taught:
    """An adapter that learns what the teacher says to views of dreams, samples, synthetic images.

    Step records of a dream have its class loss as task loss and its statistics loss as
    distillation loss.

    Parameters
    ----------
    transplant
        With something to show the teacher: a source to dream from, f, or samples.
    settings
        `teaching`, `dream` and `learning`; starts from the closed form unless told otherwise.
    thrifty
        Whether the join is measured first and learning left out where it is good enough, synthetic
        images join in, and a dream that does not converge is left out rather than an error.

    Raises
    ------
    TransplantError
        If there is nothing to show the teacher, or as `Dream` and `starting_adapter`.
    """

    def __init__(self, transplant: Transplant, settings: MethodSettings, *, thrifty: bool) -> None:
        self._transplant, self._settings, self._thrifty = transplant, settings, thrifty
        self._dream: Dream | None = None
        if transplant.source is not None:
            self._dream = Dream(transplant.source, settings.dream)
        elif not thrifty:
            raise TransplantError(
                "method 'dream' needs the statistics that a lab ships and its category module; "
                "ask the lab to switch channel means and variances on"
            )
        self._adapter = starting_adapter(
            transplant, settings.start or "closed-form", settings
        ).eval()
        self._learning: BackDistillation | None = None
        self._judged: Answers | None = None
        self._good_enough = False
        if self._dream is None:
            self._begin()

    @property
    def adapter(self) -> Adapter:
        """The adapter as it stands; the start, while a dream lasts."""
        return self._adapter

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self._good_enough or (self._learning is not None and self._learning.done)

    def step(self) -> StepRecord:
        """Take one step of the dream, or of learning.

        Raises
        ------
        TransplantError
            If `dream`'s dream did not converge, a loss is not finite, or all is done.
        """
        if self._learning is not None:
            learned = self._learning.step()
            if self._learning.done:
                self._settle()
            before = 0 if self._dream is None else self._settings.dream.steps
            return StepRecord(
                before + learned.step,
                learned.loss,
                learned.task_loss,
                learned.distillation_loss,
            )
        if self._dream is None or self._good_enough:
            raise TransplantError("this adapter is good enough as it is; it takes no steps")
        dreamed = self._dream.step()
        if self._dream.done:
            self._begin()
        return StepRecord(dreamed.step, dreamed.loss, dreamed.class_loss, dreamed.statistics_loss)

    def state(self) -> dict[str, Tensor]:
        """Return all that changes, as plain tensors."""
        state: dict[str, Tensor] = {}
        if self._dream is not None:
            state |= {f"dream/{k}": v for k, v in self._dream.state().items()}
        if self._learning is not None:
            state |= {f"learning/{k}": v for k, v in self._learning.state().items()}
        return state or {
            f"adapter/{k}": v.detach().clone() for k, v in self._adapter.state_dict().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Carry on from a state; return the same object.

        Raises
        ------
        TransplantError
            If the state belongs to another dream, adapter or settings.
        """
        if self._dream is not None:
            self._dream.restore(_under("dream/", state))
            if self._dream.done:
                self._begin()
        learning = _under("learning/", state)
        if (self._learning is not None) != bool(learning):
            raise TransplantError(
                "the state was saved for another adapter or other settings; start anew, or with "
                "the settings that it was saved with"
            )
        if self._learning is not None:
            self._learning.restore(learning)
            if self._learning.done:
                self._settle()
        return self

    def _begin(self) -> None:
        """Gather the teacher's answers, measure, and start to learn where that is needed."""
        transplant, teaching = self._transplant, self._settings.teaching
        generator = torch.Generator().manual_seed(self._settings.learning.seed)
        answers = Answers.to(transplant.problem, self._features(generator))
        answers, self._judged = answers.parted(teaching.judged, generator)
        if self._thrifty and self._measured() <= teaching.good_enough:
            self._good_enough = True
            return
        settings = self._settings.learning
        self._learning = BackDistillation(
            transplant.problem,
            copy.deepcopy(self._adapter),
            transplant.samples,
            settings.model_copy(update={"distillation": 0.0, "steps": teaching.steps}),
            ImitationPenalty(
                transplant.problem,
                answers,
                weight=teaching.weight,
                batch_size=teaching.batch_size,
            ),
        )

    def _settle(self) -> None:
        """Take what was learned, unless `auto` finds that the start is closer to the teacher."""
        assert self._learning is not None  # noqa: S101  # called when it is done
        assert self._judged is not None  # noqa: S101
        student_task = self._transplant.problem.student_task
        both = (self._learning.adapter, self._adapter)
        learned, started = (self._judged.distance(a, student_task) for a in both)
        if not self._thrifty or learned <= started:
            self._adapter = self._learning.adapter

    def _measured(self) -> float:
        """Take the better of no learning and of the closed form; return its distance to y_T."""
        assert self._judged is not None  # noqa: S101  # called after it is there
        student_task = self._transplant.problem.student_task
        started = self._judged.distance(self._adapter, student_task)
        plain = starting_adapter(self._transplant, "identity", self._settings).eval()
        identity = self._judged.distance(plain, student_task)
        if identity <= min(started, self._settings.teaching.good_enough):
            self._adapter = plain
            return identity
        return started

    def _features(self, generator: torch.Generator) -> Tensor:
        """Return f of views of all images there are; of samples alone where f is not at hand."""
        transplant, teaching = self._transplant, self._settings.teaching
        category_module = transplant.category_module
        pictures: list[tuple[Tensor, int]] = []
        if self._dream is not None and self._converged(self._dream):
            category_module = self._transplant.source.category_module  # type: ignore[union-attr]
            pictures.append((self._dream.images(), teaching.dream_views))
        features: list[Tensor] = []
        if transplant.images_NCHW is not None:
            pictures.append((transplant.images_NCHW, teaching.sample_views))
        if transplant.samples is not None:
            features.append(transplant.samples.features_NCHW)
        if self._thrifty and category_module is not None and teaching.synthetic > 0:
            shape = self._image_shape(pictures)
            if shape is not None:
                leaves_NCHW = dead_leaves(teaching.synthetic, shape, generator)
                pictures.append((leaves_NCHW, teaching.synthetic_views))
        for images_NCHW, views in pictures:
            assert category_module is not None  # noqa: S101  # there are images only with it
            device = next(category_module.parameters()).device
            views_NCHW = strong_views(
                images_NCHW, views, mirror=transplant.mirror, generator=generator
            )
            shown_NCHW = torch.cat((images_NCHW.to(views_NCHW), views_NCHW)).to(device)
            features.append(in_batches(category_module, shown_NCHW))
        if not features:
            raise TransplantError(
                "there is nothing to show the teacher: give samples, or the category module and "
                "the statistics that its lab ships"
            )
        return torch.cat([part.to(features[0]) for part in features])

    def _image_shape(self, pictures: list[tuple[Tensor, int]]) -> tuple[int, int, int] | None:
        if self._transplant.source is not None:
            return self._transplant.source.input_shape
        if pictures:
            _, channels, height, width = pictures[0][0].shape
            return channels, height, width
        return None

    def _converged(self, dream: Dream) -> bool:
        try:
            dream.require_converged()
        except TransplantError:
            if not self._thrifty:
                raise
            return False
        return True


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
