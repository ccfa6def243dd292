"""Copies of images: those that are equal, and those that only look alike."""

from __future__ import annotations

import pytest
import torch

from rootstock.site_agent.data import twins


def random_images(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic")
    return (images.clamp(0, 1) * 255).to(torch.uint8)


def test_a_digest_tells_pixels_and_masks_apart() -> None:
    first, second = random_images(2, 0)
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    digests = [twins.digest(first), twins.digest(second), twins.digest(first, mask)]
    assert len({*digests, twins.digest(first, mask + 1)}) == 4
    assert twins.digest(first.clone()) == digests[0]
    assert twins.same([*digests, digests[1], digests[0], digests[1]]) == [[0, 4], [1, 3, 5]]


@pytest.mark.parametrize("change", ["noise", "darker", "nothing"])
def test_a_copy_among_many_is_found_where_it_is(change: str) -> None:
    others, validation = random_images(700, 1), random_images(600, 2)
    copy = others[650].float()
    if change == "noise":
        copy += torch.randn(copy.shape, generator=torch.Generator().manual_seed(3)) * 4
    if change == "darker":
        copy *= 0.8
    validation[555] = copy.clamp(0, 255).to(torch.uint8)
    assert twins.look_alikes(validation, others) == [(555, 650)]


def test_four_copies_of_one_image_are_still_copies() -> None:
    others = random_images(50, 1)
    others[[3, 7, 30]] = others[40].clone()
    assert [v for v, _ in twins.look_alikes(others[40:41], others)] == [0]


def test_images_that_are_all_alike_are_no_copies() -> None:
    base = random_images(1, 4).float()
    noise = torch.randn(80, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 6
    images = (base + noise).clamp(0, 255).to(torch.uint8)
    assert twins.look_alikes(images[:40], images[40:]) == []


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_images_are_like_nothing(level: int) -> None:
    flat = torch.full((20, 3, 32, 32), level, dtype=torch.uint8)
    assert twins.look_alikes(flat, torch.cat([flat, random_images(20, 6)])) == []


def test_twenty_thousand_images_are_compared_in_bounded_memory() -> None:
    others = torch.randint(0, 256, (20_000, 1, 16, 16), dtype=torch.uint8)
    pairs = twins.look_alikes(others[10_000:14_000], others)
    assert pairs == [(n, 10_000 + n) for n in range(4000)]
