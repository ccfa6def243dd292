from __future__ import annotations

import pytest
import torch

from rootstock.common.compatible.rotation import (
    TURNS,
    RotationSettings,
    learn_rotation_head,
    turned,
)
from rootstock.common.errors import DataError
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import build_head, initialise
from tests.support import digits_lab

pytestmark = pytest.mark.slow


def test_every_image_is_turned_as_its_label_says() -> None:
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    out, turns = turned(images, torch.Generator().manual_seed(0))
    assert set(turns.tolist()) == set(range(TURNS))
    for image, result, count in zip(images, out, turns.tolist(), strict=True):
        assert torch.equal(torch.rot90(result, -count, (1, 2)), image)


def test_the_images_stay_and_the_seed_decides() -> None:
    images = torch.rand(16, 1, 4, 4)
    kept = images.clone()
    one, two = (turned(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(images, kept)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_an_oblong_image_cannot_be_turned() -> None:
    with pytest.raises(DataError, match="8×6 cannot be turned"):
        turned(torch.rand(2, 3, 8, 6), torch.Generator())


def test_a_head_learns_to_tell_turns_of_digits_it_has_not_seen() -> None:
    images = normalise(digits_lab.data(0).training.images_NCHW)
    f = digits_lab.start().category_module.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in f.state_dict().items()}

    def learned(steps: int) -> tuple[torch.nn.Sequential, float]:
        head = initialise(build_head(digits_lab.SPEC, TURNS), 0)
        return head, learn_rotation_head(head, f, images, RotationSettings(steps=steps))

    one, told = learned(150)
    two, again = learned(150)
    assert told > 0.7
    assert again == told
    assert all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())
    assert all(torch.equal(v, f.state_dict()[k]) for k, v in before.items())
    assert not any(p.requires_grad for p in one.parameters())
    assert learned(1)[1] < told


def test_a_head_needs_more_than_a_handful_of_images() -> None:
    head, f = build_head(digits_lab.SPEC, TURNS), digits_lab.start().category_module
    with pytest.raises(DataError, match="cannot be learned from 5 images"):
        learn_rotation_head(head, f, torch.rand(5, 3, 32, 32), RotationSettings())
