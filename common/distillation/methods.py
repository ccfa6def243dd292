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
from functools import partial

from rootstock.common.distillation.auto.learning import AutoLearning
from rootstock.common.distillation.problem import Samples
from rootstock.common.distillation.settings import MethodName, MethodSettings, Start
from rootstock.common.distillation.solvers.back_distillation import BackDistillation
from rootstock.common.distillation.solvers.learning import Learning
from rootstock.common.distillation.solvers.penalties import JacobianPenalty, Penalty
from rootstock.common.distillation.transplant import Transplant, soft_labels, starting_adapter
from rootstock.common.errors import TransplantError

_Begin = Callable[[Transplant, MethodSettings], Learning]


@dataclass(frozen=True)
class Method:
    """A way to find an adapter."""

    name: MethodName
    function: _Begin

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
        return Method(MethodName(name), _METHODS[MethodName(name)])
    except ValueError:
        known = ", ".join(MethodName)
        raise TransplantError(f"unknown method '{name}'; known methods: {known}") from None


def _solved(start: Start) -> _Begin:
    return lambda transplant, settings: Learning(*starting_adapter(transplant, start, settings))


def _back_distillation(
    transplant: Transplant,
    settings: MethodSettings,
    *,
    samples: Samples | None = None,
    penalty: Penalty | None = None,
    distils: bool = True,
) -> Learning:
    adapter, report = starting_adapter(transplant, settings.start or "random", settings)
    learning = settings.learning
    if not distils:
        learning = learning.model_copy(update={"distillation": 0.0})
    given = transplant.samples if samples is None else samples
    return BackDistillation(transplant.problem, adapter, given, learning, penalty, report=report)


def _distill(transplant: Transplant, settings: MethodSettings) -> Learning:
    x_NCHW = _samples(transplant).features_NCHW
    soft = Samples(x_NCHW, soft_labels(transplant.problem, x_NCHW))
    return _back_distillation(transplant, settings, samples=soft, distils=False)


def _jacobian(transplant: Transplant, settings: MethodSettings) -> Learning:
    penalty = JacobianPenalty(
        transplant.problem,
        _samples(transplant),
        weight=settings.learning.distillation,
        batch_size=settings.learning.batch_size,
    )
    return _back_distillation(transplant, settings, penalty=penalty)


def _auto(transplant: Transplant, settings: MethodSettings) -> Learning:
    showable = (transplant.source, transplant.image_shape, transplant.samples)
    if all(thing is None for thing in showable):
        # Nothing to show the teacher, so nothing to measure by: pseudo-gradients have to do.
        return _METHODS[MethodName.CLOSED_FORM](transplant, settings)
    return AutoLearning(transplant, settings, thrifty=True)


def _samples(transplant: Transplant) -> Samples:
    assert transplant.samples is not None  # noqa: S101  # `begin` has looked
    return transplant.samples


_METHODS: dict[MethodName, _Begin] = {
    MethodName.IDENTITY: _solved("identity"),
    MethodName.CLOSED_FORM: _solved("closed-form"),
    MethodName.BACK_DISTILL: _back_distillation,
    MethodName.DIRECT_LEARN: partial(_back_distillation, distils=False),
    MethodName.DISTILL: _distill,
    MethodName.JACOBIAN: _jacobian,
    MethodName.DREAM: partial(AutoLearning, thrifty=False),
    MethodName.AUTO: _auto,
}
