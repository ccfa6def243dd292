"""Attention transfer and learning without forgetting against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from tests.benchmarks.papers.l2t.methods import attention, attention_loss, distillation_loss


def test_attention_maps_have_norm_1_and_no_channels() -> None:
    torch.manual_seed(0)
    map_NCHW = torch.randn(3, 5, 4, 6, dtype=torch.float64)
    found_NP = attention(map_NCHW)
    squares = (map_NCHW**2).sum(1).reshape(3, 24)
    torch.testing.assert_close(found_NP, squares / squares.norm(dim=1, keepdim=True))
    more = torch.cat((map_NCHW, torch.zeros(3, 2, 4, 6)), 1)
    assert float(attention_loss(more, 7 * map_NCHW)) == pytest.approx(0, abs=1e-12)
    other = torch.randn(3, 2, 8, 12, dtype=torch.float64)
    small = F.interpolate(other, (4, 6), mode="bilinear")
    expected = (attention(small) - found_NP).square().mean()
    torch.testing.assert_close(attention_loss(other, map_NCHW), expected)


def test_distillation_is_least_where_answers_agree() -> None:
    torch.manual_seed(0)
    told_NO = torch.randn(4, 3, dtype=torch.float64)
    p_NO = torch.softmax(told_NO / 2, 1)
    entropy = -(p_NO * p_NO.log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(told_NO, told_NO + 5), entropy)
    own = told_NO.clone().requires_grad_()
    distillation_loss(told_NO, own).backward()
    assert own.grad is not None
    assert float(own.grad.abs().max()) < 1e-12
    assert float(distillation_loss(told_NO, -told_NO)) > float(entropy)
