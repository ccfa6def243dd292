from __future__ import annotations

import pytest
import torch

from common.compatible.rotation import TURNS, turned
from common.errors import DataError


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
