"""Adapting a category module by rotations, on real digits and a noisy domain made of them."""

from __future__ import annotations

import copy
import hashlib
import math

import pytest
import torch
from torch import Tensor, nn

from rootstock.common.compatible.adaptation import (
    Adaptation,
    AdaptationSettings,
    adapt,
    rotation_accuracy,
)
from rootstock.common.compatible.batchnorm import re_estimate
from rootstock.common.errors import DataError
from rootstock.common.images import batches
from tests.support import digit_domains, digits_lab
from tests.support.layers import weight

pytestmark = pytest.mark.slow

SETTINGS = AdaptationSettings(steps=40, learning_rate=1e-3)


def target() -> Tensor:
    return digit_domains.noisy(digit_domains.data().training.images_NCHW)


def adapted(settings: AdaptationSettings = SETTINGS, images: Tensor | None = None) -> Adaptation:
    net, head = digit_domains.trained()
    return adapt(net.category_module, head, target() if images is None else images, settings)


def digest(module: nn.Module) -> str:
    sha = hashlib.sha256()
    for value in module.state_dict().values():
        sha.update(value.numpy().tobytes())
    return sha.hexdigest()


def below_g(f: nn.Sequential) -> nn.Sequential:
    g = digit_domains.trained().net.task_modules[digit_domains.TASK]
    net = nn.Sequential(copy.deepcopy(f), copy.deepcopy(g))
    re_estimate(net, batches(target(), digits_lab.CPU))
    return net


def test_rotations_alone_bring_the_classifier_back() -> None:
    """The order of the paper's table 2: as it is, BatchNorm statistics anew, adapted."""
    f = digit_domains.trained().net.category_module
    g, test = (
        digit_domains.trained().net.task_modules[digit_domains.TASK],
        digit_domains.target_test(),
    )
    found = adapted()
    assert found.adapted.loss < found.re_estimated.loss < found.source.loss
    assert found.step > 0
    as_it_was = digit_domains.error(f, g, test)
    anew, after = (
        digit_domains.error(net[0], net[1], test)
        for net in (below_g(f), below_g(found.category_module))
    )
    assert as_it_was > anew + 3
    assert anew > after + 5


def test_neither_the_net_nor_the_head_changes_and_the_seed_decides() -> None:
    net, head = digit_domains.trained()
    before = [digest(net.category_module), digest(head)]
    state = torch.get_rng_state()
    few = SETTINGS.model_copy(update={"steps": 3, "check_steps": 1})
    one, two = adapted(few), adapted(few)
    other = adapted(few.model_copy(update={"seed": 1}))
    assert [digest(net.category_module), digest(head)] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert digest(one.category_module) == digest(two.category_module)
    assert (one.step, one.adapted) == (two.step, two.adapted)
    assert other.source != one.source  # other images are set apart
    frozen = [*head.parameters(), *net.category_module.parameters()]
    assert not any(p.requires_grad for p in [*frozen, *one.category_module.parameters()])
    assert not any(module.training for module in one.category_module.modules())


def test_what_is_kept_is_best_on_images_that_were_set_apart() -> None:
    wild = adapted(SETTINGS.model_copy(update={"learning_rate": 3.0, "steps": 4}))
    assert wild.step == 0
    assert wild.adapted == wild.re_estimated
    assert (wild.learned_from, wild.judged_on) == (
        len(target()) - math.ceil(0.3 * len(target())),
        math.ceil(0.3 * len(target())),
    )


def test_every_turn_of_every_image_is_told() -> None:
    """A head that always says "not turned" is right about a quarter."""
    f = digit_domains.trained().net.category_module
    upright = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        weight(upright, "2").zero_()
        upright.get_parameter("2.bias").copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    found = rotation_accuracy(f, upright, target()[:10])
    assert found.accuracy == 25
    assert found.loss == pytest.approx(math.log(math.e + 3) - 1 / 4, abs=1e-5)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(19, 3, 32, 32), "adapted to 19 images; give 20 or more"),
        (torch.zeros(45, 3, 32, 32), "45 images leave 31 to learn from.* give 46 or more"),
        (torch.zeros(50, 1, 32, 32), "images of 1×32×32 are no input .* takes 3 channels"),
        (torch.zeros(50, 3, 32, 24), "32×24 cannot be turned"),
    ],
)
def test_images_that_do_not_serve(images: Tensor, said: str) -> None:
    with pytest.raises(DataError, match=said):
        adapted(images=images.byte())


def test_as_many_images_as_the_error_asks_for_are_enough() -> None:
    few = SETTINGS.model_copy(update={"steps": 1})
    assert adapted(few, target()[:46]).learned_from == 32
