"""Features drawn from shipped moments have these moments; what is no moment is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rootstock.common.errors import TransplantError
from rootstock.common.nets.feature_moments import (
    COVARIANCES,
    MEAN,
    FeatureMoments,
    MomentSums,
    layout,
)

SHAPE = (5, 4, 3)


def kronecker(count: int) -> Tensor:
    """Draw features whose covariance is a Kronecker product, by another way than the product's."""
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(side, side, generator=generator) for side in SHAPE]
    whole_DD = torch.kron(torch.kron(factors[0], factors[1]), factors[2])
    noise_ND = torch.randn(count, len(whole_DD), generator=generator)
    mean_D = torch.randn(len(whole_DD), generator=generator)
    return (mean_D + noise_ND @ whole_DD.T).reshape(count, *SHAPE)


def measured(*parts: Tensor) -> dict[str, Tensor]:
    sums = MomentSums()
    for part_NCHW in parts:
        sums.add(part_NCHW)
    return sums.moments()


def test_draws_have_the_moments_that_were_measured() -> None:
    x_NCHW = kronecker(20_000)
    named = measured(x_NCHW)
    assert {name: tuple(each.shape) for name, each in named.items()} == layout(SHAPE)
    moments = FeatureMoments.shipped(named, SHAPE, signed=True)
    drawn_NCHW = moments.draw(20_000, torch.Generator().manual_seed(1))
    assert drawn_NCHW.shape == x_NCHW.shape
    assert drawn_NCHW.dtype == torch.float32
    deviation_CHW = x_NCHW.std(0)
    torch.testing.assert_close(
        drawn_NCHW.mean(0) / deviation_CHW, x_NCHW.mean(0) / deviation_CHW, rtol=0, atol=0.05
    )
    ours_DD, theirs_DD = (each.flatten(1).T.cov() for each in (x_NCHW, drawn_NCHW))
    assert float((ours_DD - theirs_DD).norm() / ours_DD.norm()) < 0.06


def test_a_channel_s_variance_is_that_of_its_places() -> None:
    x_NCHW = kronecker(300)
    named = measured(x_NCHW)
    expected_C = x_NCHW.var(0, correction=0).mean((1, 2))
    torch.testing.assert_close(named[COVARIANCES[0]].diagonal(), expected_C)
    torch.testing.assert_close(named[MEAN], x_NCHW.mean(0))
    for name in COVARIANCES[1:]:
        assert float(named[name].diagonal().mean()) == pytest.approx(1)


def test_parts_add_up() -> None:
    x_NCHW = kronecker(90)
    whole, parts = measured(x_NCHW), measured(*torch.split(x_NCHW, 40))
    for name, each in whole.items():
        torch.testing.assert_close(parts[name], each)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.1])
def test_a_channel_that_never_changes_is_drawn_as_it_is(value: float) -> None:
    """Rounding leaves no variance below zero: an honest lab is not refused for it."""
    x_NCHW = kronecker(67)
    x_NCHW[:, 2] = value
    named = measured(*torch.split(x_NCHW, 10))
    assert float(named[COVARIANCES[0]].diagonal().min()) >= 0
    drawn_NCHW = FeatureMoments.shipped(named, SHAPE, signed=True).draw(40, torch.Generator())
    size = float(x_NCHW.std())
    torch.testing.assert_close(
        drawn_NCHW[:, 2], torch.full((40, *SHAPE[1:]), value), rtol=0, atol=0.1 * size
    )


def test_features_that_never_change_have_no_covariance() -> None:
    named = measured(torch.full((67, *SHAPE), 0.3))
    assert all(bool((named[name] == 0).all()) for name in COVARIANCES)


def test_only_channels_say_how_large_features_are() -> None:
    """Rows and columns are a peer's numbers as well: a factor on them changes nothing."""
    named = measured(kronecker(300))
    moments = FeatureMoments.shipped(named, SHAPE, signed=True)
    for name in COVARIANCES[1:]:
        named[name] = 1e5 * named[name]
    lied = FeatureMoments.shipped(named, SHAPE, signed=True)
    drawn, same = (each.draw(20, torch.Generator()) for each in (moments, lied))
    torch.testing.assert_close(drawn, same, rtol=1e-3, atol=1e-3)


def test_features_after_a_relu_are_drawn_from_zero_up() -> None:
    named = measured(kronecker(300))
    drawn = [
        FeatureMoments.shipped(named, SHAPE, signed=signed).draw(50, torch.Generator())
        for signed in (True, False)
    ]
    assert float(drawn[0].min()) < 0
    assert torch.equal(drawn[1], drawn[0].clamp_min(0))


def test_few_images_are_enough() -> None:
    """Fewer than there are channels: the covariance is singular, and is drawn from all the same."""
    moments = FeatureMoments.shipped(measured(kronecker(2)), SHAPE, signed=True)
    assert bool(moments.draw(10, torch.Generator()).isfinite().all())


def _never_changes(named: dict[str, Tensor]) -> None:
    named[COVARIANCES[0]] = torch.zeros(5, 5)


def _no_covariance(named: dict[str, Tensor]) -> None:
    named[COVARIANCES[1]] = torch.full((4, 4), 2.0) - torch.eye(4)


def _of_another_net(named: dict[str, Tensor]) -> None:
    named[MEAN] = torch.zeros(5, 4, 4)


def _kept(named: dict[str, Tensor]) -> None:
    del named[COVARIANCES[2]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_never_changes, "'feature_channels' has a mean variance of 0; features that never change"),
        (_no_covariance, "'feature_rows' is no covariance: it has an eigenvalue below zero"),
        (_of_another_net, r"'feature_mean' has shape \(5, 4, 4\), features of 5×4×3 have \(5, 4"),
        (_kept, "'feature_columns' was not shipped, so no features can be drawn"),
    ],
)
def test_what_is_no_moment_is_refused(
    spoil: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    named = measured(kronecker(50))
    spoil(named)
    with pytest.raises(TransplantError, match=message):
        FeatureMoments.shipped(named, SHAPE, signed=True)
