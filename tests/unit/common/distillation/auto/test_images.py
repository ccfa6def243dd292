import torch

from rootstock.common.distillation.auto.images import dead_leaves, mixtures, strong_views


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_mixtures_lie_between_images() -> None:
    first, second = torch.zeros(40, 1, 2, 2), torch.ones(40, 1, 2, 2)
    one, other = (mixtures(first, second, generator()) for _ in range(2))
    assert torch.equal(one, other)
    assert 0 <= float(one.min()) < 0.2
    assert 0.8 < float(one.max()) <= 1


def test_views_are_as_many_as_asked_for_and_the_same_for_a_seed() -> None:
    images = torch.randn(3, 3, 16, 16, generator=generator())
    state = torch.get_rng_state()
    one, other = (strong_views(images, 20, mirror=True, generator=generator()) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())
    assert one.shape == (20, 3, 16, 16)
    assert float(one.abs().max()) <= 2


def test_every_image_is_seen_whole_mixed_or_pasted() -> None:
    """One constant image a value: a view's values tell which images are in it."""
    images = torch.tensor([-1.5, 1.5]).reshape(2, 1, 1, 1).repeat(1, 1, 32, 32)
    views = strong_views(images, 200, mirror=False, generator=generator())
    both = ((views > 0.5).flatten(1).any(1) & (views < -0.5).flatten(1).any(1)).float().mean()
    assert 0.1 < float(both) < 0.8  # pasted, and some that moved over the edge
    assert 0.2 < float((views.mean((1, 2, 3)) > 0).float().mean()) < 0.8


def test_dead_leaves_are_coloured_and_have_edges() -> None:
    leaves = dead_leaves(16, (3, 32, 32), generator())
    assert torch.equal(leaves, dead_leaves(16, (3, 32, 32), generator()))
    assert leaves.shape == (16, 3, 32, 32)
    assert float(leaves.abs().max()) <= 2
    assert float(leaves.std((0, 2, 3)).min()) > 0.5
    # Neighbouring pixels mostly agree, and now and then differ much: shapes, not noise.
    steps = (leaves[..., 1:] - leaves[..., :-1]).abs()
    assert float(steps.median()) < 0.2
    assert float(steps.quantile(0.95)) > 0.8
