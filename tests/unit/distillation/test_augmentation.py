import torch

from common.distillation.augmentation import AugmentConfig, augment


def images() -> torch.Tensor:
    return torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def draw(config: AugmentConfig, seed: int, *, mirror: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augment(images(), config, mirror=mirror, generator=generator)


STILL = AugmentConfig(shift=0)


def test_nothing_is_changed_where_nothing_may_change() -> None:
    assert torch.equal(draw(STILL, 0), images())


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    flipped = draw(STILL, 0, mirror=True)
    mirrored = [
        torch.allclose(after, before.flip(-1), atol=1e-4)
        for before, after in zip(images(), flipped, strict=True)
    ]
    same = [
        torch.allclose(after, before, atol=1e-4)
        for before, after in zip(images(), flipped, strict=True)
    ]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 3 < sum(mirrored) < 13


def test_a_digit_is_never_mirrored_unless_told_to() -> None:
    assert torch.equal(draw(STILL, 0, mirror=False), images())
    assert not torch.equal(draw(AugmentConfig(shift=0, flip=True), 0, mirror=False), images())


def test_the_seed_decides() -> None:
    config = AugmentConfig(shift=0.1, zoom=0.2, rotation=10, colour=0.2, erase=0.2)
    assert torch.equal(draw(config, 5), draw(config, 5))
    assert not torch.equal(draw(config, 5), draw(config, 6))


def test_a_shift_moves_mid_grey_in() -> None:
    ones = torch.ones(64, 1, 32, 32)
    generator = torch.Generator().manual_seed(0)
    moved = augment(ones, AugmentConfig(shift=0.25), mirror=False, generator=generator)
    covered = moved.mean((1, 2, 3))
    assert covered.min() > (1 - 0.25) ** 2 - 0.05
    assert covered.max() <= 1
    assert covered.min() < 0.8
