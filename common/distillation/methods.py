"""Every way to find an adapter, behind one interface, looked up by name.

A method turns a `Transplant` into a `Learning`, which takes steps until it is done and can be cut
and carried on anywhere. Methods that need no steps are done at once.

| name | samples | what |
|---|---|---|
| identity | no | the Dirac start: what no learning gives |
| closed-form | no | least squares on pseudo-gradients (METHODS 1b, 1c) |
| back-distill | if any | the paper (Eq. 3) |
| direct-learn | yes | the task loss alone, the paper's baseline |
| distill | yes | cross-entropy of y_S to σ(y_T), the paper's baseline |
| jacobian | yes | real gradients at the samples, no balancing, the paper's baseline |
| dream | if any | y_T imitated on images dreamed from the teacher and shipped statistics |
| auto | if any | what we recommend: measure, then the least that is good enough |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rootstock.common.distillation.auto.learning import AutoLearning
from rootstock.common.distillation.problem import Samples
from rootstock.common.distillation.settings import MethodName, MethodSettings
from rootstock.common.distillation.solvers.back_distillation import BackDistillation
from rootstock.common.distillation.solvers.learning import Learning
from rootstock.common.distillation.solvers.penalties import JacobianPenalty
from rootstock.common.distillation.transplant import Transplant, distilled, starting_adapter
from rootstock.common.errors import TransplantError


@dataclass(frozen=True)
class Method:
    """A way to find an adapter."""

    name: MethodName
    function: Callable[[Transplant, MethodSettings], Learning]

    def begin(self, transplant: Transplant, settings: MethodSettings) -> Learning:
        """Prepare the learning; the same input and seed give the same adapter."""
        if self.name.needs_samples and transplant.samples is None:
            without = ", ".join(name for name in MethodName if not name.needs_samples)
            raise TransplantError(
                f"method '{self.name}' learns from samples and there are none; "
                f"give some, or use one of {without}"
            )
        return self.function(transplant, settings)


def method_named(name: str) -> Method:
    """Return the method of a name; an unknown one is refused with those that there are."""
    try:
        return _METHODS[MethodName(name)]
    except ValueError:
        known = ", ".join(MethodName)
        raise TransplantError(f"unknown method '{name}'; known methods: {known}") from None


def _identity(transplant: Transplant, settings: MethodSettings) -> Learning:
    return Learning(*starting_adapter(transplant, "identity", settings))


def _closed_form(transplant: Transplant, settings: MethodSettings) -> Learning:
    return Learning(*starting_adapter(transplant, "closed-form", settings))


def _back_distill(transplant: Transplant, settings: MethodSettings) -> Learning:
    adapter, report = starting_adapter(transplant, settings.start or "random", settings)
    return BackDistillation(
        transplant.problem, adapter, transplant.samples, settings.learning, report=report
    )


def _direct_learn(transplant: Transplant, settings: MethodSettings) -> Learning:
    adapter, report = starting_adapter(transplant, settings.start or "random", settings)
    learning = settings.learning.model_copy(update={"distillation": 0.0})
    return BackDistillation(
        transplant.problem, adapter, transplant.samples, learning, report=report
    )


def _distill(transplant: Transplant, settings: MethodSettings) -> Learning:
    adapter, report = starting_adapter(transplant, settings.start or "random", settings)
    return distilled(transplant, _samples(transplant).features_NCHW, adapter, settings, report)


def _jacobian(transplant: Transplant, settings: MethodSettings) -> Learning:
    samples, learning = _samples(transplant), settings.learning
    penalty = JacobianPenalty(
        transplant.problem,
        samples,
        weight=learning.distillation,
        batch_size=learning.batch_size,
    )
    adapter, report = starting_adapter(transplant, settings.start or "random", settings)
    return BackDistillation(transplant.problem, adapter, samples, learning, penalty, report=report)


def _dream(transplant: Transplant, settings: MethodSettings) -> Learning:
    return AutoLearning(transplant, settings, thrifty=False)


def _auto(transplant: Transplant, settings: MethodSettings) -> Learning:
    showable = (transplant.source, transplant.image_shape, transplant.samples)
    if all(thing is None for thing in showable):
        # Nothing to show the teacher, so nothing to measure by: pseudo-gradients have to do.
        return _closed_form(transplant, settings)
    return AutoLearning(transplant, settings, thrifty=True)


def _samples(transplant: Transplant) -> Samples:
    assert transplant.samples is not None  # noqa: S101  # `begin` has looked
    return transplant.samples


_METHODS: dict[MethodName, Method] = {
    method.name: method
    for method in (
        Method(MethodName.IDENTITY, _identity),
        Method(MethodName.CLOSED_FORM, _closed_form),
        Method(MethodName.BACK_DISTILL, _back_distill),
        Method(MethodName.DIRECT_LEARN, _direct_learn),
        Method(MethodName.DISTILL, _distill),
        Method(MethodName.JACOBIAN, _jacobian),
        Method(MethodName.DREAM, _dream),
        Method(MethodName.AUTO, _auto),
    )
}
