from __future__ import annotations

import pytest
import torch
from torch import nn

from rootstock.common.compatible.batchnorm import FEWEST, norms, re_estimate
from rootstock.common.errors import DataError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    ).eval()


def test_statistics_are_those_of_the_images() -> None:
    found, images = net(), 2 + torch.randn(64, 3, 12, 12)
    weights = {name: value.clone() for name, value in found.named_parameters()}
    assert re_estimate(found, images.split(32)) == 64
    first = found[0](images)
    norm = found[1]
    assert torch.allclose(norm.get_buffer("running_mean"), first.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.get_buffer("running_var"), first.var((0, 2, 3)), rtol=0.02)
    assert all(torch.equal(value, weights[name]) for name, value in found.named_parameters())
    assert not any(module.training for module in found.modules())
    assert [layer.momentum for layer in norms(found)] == [0.1, 0.1]
    # What comes out is then normal, whatever went in.
    out = found(images)
    assert abs(float(out.detach().mean())) < 0.05


def test_too_few_images_change_nothing() -> None:
    found = net()
    before = {name: value.clone() for name, value in found.state_dict().items()}
    with pytest.raises(DataError, match=f"from {FEWEST - 1} images would be noise"):
        re_estimate(found, [torch.randn(FEWEST - 1, 3, 12, 12)])
    assert all(torch.equal(value, before[name]) for name, value in found.state_dict().items())
    assert not any(module.training for module in found.modules())


def test_a_net_without_batchnorm_is_left_alone() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout())
    assert re_estimate(plain, [torch.randn(2, 3, 8, 8)]) == 0
    assert not plain.training
