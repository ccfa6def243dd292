import torch

from rootstock.common.distillation.augmentation import augment, augment_labelled
from rootstock.common.distillation.settings import AugmentConfig


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


ALL = AugmentConfig(shift=0.2, zoom=0.3, rotation=30, colour=0.2)


def discs() -> tuple[torch.Tensor, torch.Tensor]:
    """Bright discs (32, 3, 32, 32), and where they are; a corner has no label."""
    rows, columns = torch.arange(32)[:, None], torch.arange(32)
    inside = (rows - 10) ** 2 + (columns - 18) ** 2 < 49
    labels_NHW = inside.float().repeat(32, 1, 1)
    images_NCHW = 2 * labels_NHW[:, None].repeat(1, 3, 1, 1)
    labels_NHW[:, :4, :4] = torch.nan
    return images_NCHW, labels_NHW


def both(config: AugmentConfig) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return augment_labelled(*discs(), config, mirror=True, generator=generator)


def test_labels_move_with_their_images() -> None:
    images_NCHW, labels_NHW = both(ALL)
    assert not torch.equal(labels_NHW.nan_to_num(2), discs()[1].nan_to_num(2))
    labelled = ~labels_NHW.isnan()
    bright = images_NCHW.mean(1) > 1
    assert (bright[labelled] == (labels_NHW[labelled] > 0.5)).float().mean() > 0.98
    assert set(labels_NHW[labelled].tolist()) == {0.0, 1.0}


def test_images_are_those_that_no_label_comes_with() -> None:
    generator = torch.Generator().manual_seed(2)
    for config in (ALL, AugmentConfig(erase=0.2), STILL):
        expected = augment(discs()[0], config, mirror=True, generator=generator.manual_seed(2))
        assert torch.equal(both(config)[0], expected)


def test_what_moves_in_or_is_erased_has_no_label() -> None:
    ones = torch.ones(64, 1, 32, 32)
    generator = torch.Generator().manual_seed(0)
    moved, labels = augment_labelled(
        ones, ones[:, 0], AugmentConfig(shift=0.25), mirror=False, generator=generator
    )
    assert 0.05 < labels.isnan().float().mean() < 0.4
    assert (moved[:, 0][labels.isnan()] < 1).all()
    assert (labels[~labels.isnan()] == 1).all()
    erased, labels = augment_labelled(
        ones, ones[:, 0], AugmentConfig(shift=0, erase=0.2), mirror=False, generator=generator
    )
    assert torch.equal(labels.isnan(), erased[:, 0] == 0)
    assert labels.isnan().any()


def test_labels_stay_where_nothing_moves() -> None:
    images_NCHW, labels_NHW = discs()
    _, same = augment_labelled(
        images_NCHW, labels_NHW, STILL, mirror=False, generator=torch.Generator()
    )
    torch.testing.assert_close(same, labels_NHW, equal_nan=True, rtol=0, atol=0)
