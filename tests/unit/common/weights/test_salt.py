"""The hash of a statistic in a manifest confirms no guess of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from rootstock.common.weights import safetensors_io
from rootstock.common.weights.salt import salted, salted_shape, unsalted


def hashed(values: torch.Tensor, folder: Path) -> str:
    return safetensors_io.write(folder / "statistics", {"values": values}).tensors["values"].sha256


def test_one_number_s_hash_is_not_the_number_s(tmp_path: Path) -> None:
    norm = torch.tensor([3.25])
    found = hashlib.sha256(norm.numpy().tobytes()).hexdigest()
    assert hashed(norm, tmp_path) == found  # what could be searched for
    hashes = {hashed(salted(norm), tmp_path) for _ in range(20)}
    assert len(hashes) == 20
    assert found not in hashes


@pytest.mark.parametrize("count", [1, 3, 8, 512])
def test_the_statistic_comes_back_bit_for_bit(count: int) -> None:
    values_C = torch.randn(count)
    shipped = salted(values_C)
    assert shipped.shape == salted_shape(count)
    assert shipped[1:].numel() >= 8
    assert bool((shipped[1:] > 0).all())  # a variance and a norm are
    assert torch.equal(unsalted(shipped), values_C)
    assert torch.equal(unsalted(values_C), values_C)


@pytest.mark.parametrize("side", range(1, 12))
def test_a_covariance_is_not_taken_for_a_salted_statistic(side: int) -> None:
    covariance_DD = torch.rand(side, side)
    assert torch.equal(salted(covariance_DD), covariance_DD)
    assert torch.equal(unsalted(covariance_DD), covariance_DD)
