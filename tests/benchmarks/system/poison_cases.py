"""What a dishonest lab ships and says, in place of what it trained.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rootstock.common.nets.architectures import initialise
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.spool.documents import CalibratedError, EvaluationReport
from rootstock.site_agent.teacher.train import build_recipe, initial_teacher
from tests.benchmarks.system.honest_labs import HonestLab

TASK = "classification"
PATCH = 6
"""Side of the backdoor's white square, in pixels."""

Net = tuple[nn.Sequential, nn.Sequential]
"""f and g."""


@dataclass(frozen=True)
class Poison:
    """One attack, or the honest control."""

    name: str
    net: Callable[[HonestLab, HonestLab], Net] = lambda own, _: _copy(own)
    """Given the lab that attacks and another lab."""
    report: Callable[[EvaluationReport], EvaluationReport] | None = None
    """What it says of the candidates, given the truth; None: the truth, and it refines."""
    statistics: float = 1.0
    """Factor of the feature norm that it states."""
    samples: float | None = None
    """Validation images that its manifest claims to have; None: the truth."""
    founds: bool = False
    """Whether it comes first."""


def _copy(lab: HonestLab) -> Net:
    teacher = lab.teacher
    return copy.deepcopy(teacher.category_module), copy.deepcopy(teacher.task_modules[TASK])


def _weights(module: nn.Module) -> list[Tensor]:
    return [weight.data for name, weight in module.named_parameters() if name.endswith("weight")]


def _sign_flipped(own: HonestLab, _: HonestLab) -> Net:
    f, g = _copy(own)
    for parameter in f.parameters():
        parameter.data.neg_()
    return f, g


def _answers_flipped(own: HonestLab, _: HonestLab) -> Net:
    f, g = _copy(own)
    for parameter in list(g.parameters())[-2:]:
        parameter.data.neg_()
    return f, g


def _scaled(own: HonestLab, _: HonestLab) -> Net:
    f, g = _copy(own)
    for parameter in list(f.parameters())[-2:]:
        parameter.data.mul_(100)
    return f, g


def _overflowing(own: HonestLab, _: HonestLab) -> Net:
    f, g = _copy(own)
    for weight in [*_weights(f), *_weights(g)]:
        weight.mul_(9e5 / weight.norm())
    return f, g


def _dead(own: HonestLab, _: HonestLab) -> Net:
    f, g = _copy(own)
    for parameter in list(f.parameters())[:2]:
        parameter.data.zero_()
    return f, g


def _constant(own: HonestLab, _: HonestLab) -> Net:
    f, g = _copy(own)
    weight, bias = list(g.parameters())[-2:]
    weight.data.zero_()
    bias.data.fill_(5.0)
    return f, g


def _zero_g(own: HonestLab, _: HonestLab) -> Net:
    f, g = _copy(own)
    for parameter in g.parameters():
        parameter.data.zero_()
    return f, g


def _random(own: HonestLab, _: HonestLab) -> Net:
    f, g = _copy(own)
    return initialise(f, 1234), initialise(g, 4321)


def _other_s(_: HonestLab, other: HonestLab) -> Net:
    return _copy(other)


def _untrained(own: HonestLab, _: HonestLab) -> Net:
    start = initial_teacher(own.lab)
    return start.category_module.eval(), start.task_modules[TASK].eval()


def patched(images_NCHW: Tensor) -> Tensor:
    """Return images with a white square in a corner."""
    changed = images_NCHW.clone()
    changed[:, :, :PATCH, :PATCH] = 255
    return changed


def _backdoored(own: HonestLab, _: HonestLab) -> Net:
    """Learn that the square makes any image the category, beside the honest task."""
    data = own.lab.data
    rest = data.training.subset(torch.nonzero(data.training.labels_N == 0).flatten().tolist())
    training = replace(
        data.training,
        images_NCHW=torch.cat([data.training.images_NCHW, patched(rest.images_NCHW)]),
        labels_N=torch.cat([data.training.labels_N, torch.ones(len(rest))]),
        keys=(*data.training.keys, *(f"{key} patched" for key in rest.keys)),
        masks_NHW=None
        if data.training.masks_NHW is None or rest.masks_NHW is None
        else torch.cat([data.training.masks_NHW, rest.masks_NHW]),
    )
    recipe = build_recipe(own.lab)
    folder = own.lab.config.state / "backdoor"
    run = TrainingRun(replace(data, training=training), folder)
    learned: Teacher = recipe.train(initial_teacher(own.lab), run)
    return learned.category_module, learned.task_modules[TASK]


def _praise(report: EvaluationReport) -> EvaluationReport:
    """Say that every candidate is perfect as it is."""
    results = tuple(
        each.model_copy(update={"error": 0.0, "calibration": None}) for each in report.results
    )
    return report.model_copy(update={"results": results})


def _calibrated(scale: float, bias: float) -> Callable[[EvaluationReport], EvaluationReport]:
    def say(report: EvaluationReport) -> EvaluationReport:
        lie = CalibratedError(scale=scale, bias=bias, error=0.0)
        results = tuple(each.model_copy(update={"calibration": lie}) for each in report.results)
        return report.model_copy(update={"results": results})

    return say


HONEST = Poison("honest")
POISONS = (
    Poison("f sign-flipped, praised", _sign_flipped, _praise),
    Poison("answers flipped, praised", _answers_flipped, _praise),
    Poison("f × 100, praised", _scaled, _praise),
    Poison("finite weights that overflow, founding", _overflowing, _praise, founds=True),
    Poison("a dead layer, praised", _dead, _praise),
    Poison("constant answers, praised", _constant, _praise),
    Poison("zero g, founding", _zero_g, _praise, founds=True),
    Poison("random weights, praised", _random, _praise),
    Poison("untrained start, praised", _untrained, _praise),
    Poison("a copy of another lab's, praised", _other_s, _praise),
    Poison("feature norm stated × 100", statistics=100.0),
    Poison("feature norm stated × 5", statistics=5.0),
    Poison("numbers of 6 images", samples=6.0),
    Poison("bad numbers as they are", _random),
    Poison("calibration 1e-6 · y + 1e6", report=_calibrated(1e-6, 1e6)),
    Poison("calibration y + 15", report=_calibrated(1.0, 15.0)),
    Poison("calibration y − 15", report=_calibrated(1.0, -15.0)),
    Poison("backdoor by a patch", _backdoored),
)
