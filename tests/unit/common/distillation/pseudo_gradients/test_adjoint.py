import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rootstock.common.distillation.pseudo_gradients.adjoint import (
    RULES,
    output_shape,
    pseudo_gradient,
    relu_maps,
)
from rootstock.common.distillation.pseudo_gradients.rules import Site
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import build_task_module, feature_shape
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec
from tests.oracles.double_backward import sliding, slow_gradient

quick = settings(max_examples=40, deadline=None)
small = st.integers(1, 3)
pairs = st.tuples(small, small)
sizes = st.tuples(st.integers(5, 12), st.integers(5, 12))
TASK = TaskSpec(name="classification")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    """Double precision, weights from a seed, evaluation mode."""
    module.double().eval()
    with torch.no_grad():
        for place, parameter in enumerate(module.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=place))
    return module


def holds_adjoint_identity(layer: nn.Module, *shape: int) -> None:
    """<J v, g> = <v, J^T g>, J v by a difference: the layers are affine."""
    v, zero = normal(2, *shape, seed=1), torch.zeros(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        Jv = layer(v) - layer(zero)
        g = normal(*Jv.shape, seed=2)
        back = pseudo_gradient(layer, g, input_shape_CHW=shape)
    assert back.shape == v.shape
    assert output_shape(layer, shape) == Jv.shape[1:]
    torch.testing.assert_close((Jv * g).sum(), (v * back).sum(), rtol=1e-10, atol=1e-10)


@quick
@given(
    size=sizes,
    kernel=pairs,
    stride=pairs,
    padding=st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 2)), st.just("valid")),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
)
def test_convolution(
    size: tuple[int, int], kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> None:
    conv = nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups)
    holds_adjoint_identity(randomised(conv), 4, *size)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@quick
@given(size=sizes, kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), dilation=pairs)
def test_convolution_that_keeps_the_size(size: Any, kernel: Any, dilation: Any) -> None:
    conv = nn.Conv2d(2, 3, kernel, padding="same", dilation=dilation)
    holds_adjoint_identity(randomised(conv), 2, *size)


@quick
@given(
    size=sizes,
    kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    stride=pairs,
    padding=st.integers(0, 1),
    ceil_mode=st.booleans(),
    include=st.booleans(),
    divisor=st.sampled_from([None, 3]),
)
def test_average_pool(
    size: Any,
    kernel: Any,
    stride: Any,
    padding: int,
    ceil_mode: bool,
    include: bool,
    divisor: int | None,
) -> None:
    pool = nn.AvgPool2d(kernel, stride, padding, ceil_mode, include, divisor)
    holds_adjoint_identity(pool, 3, *size)


@quick
@given(size=sizes, kernel=st.integers(2, 3), stride=small, ceil_mode=st.booleans())
def test_max_pool_counts_as_average_pool(
    size: Any, kernel: int, stride: int, ceil_mode: bool
) -> None:
    shape = (3, *size)
    average = nn.AvgPool2d(kernel, stride, ceil_mode=ceil_mode)
    g = normal(2, *average(torch.zeros(1, *shape)).shape[1:])
    maximum = nn.MaxPool2d(kernel, stride, ceil_mode=ceil_mode)
    expected = pseudo_gradient(average, g, input_shape_CHW=shape)
    assert torch.equal(expected, pseudo_gradient(maximum, g, input_shape_CHW=shape))


@quick
@given(size=sizes, places=st.tuples(st.integers(1, 14), st.integers(1, 14)))
def test_adaptive_average_pool(size: Any, places: Any) -> None:
    holds_adjoint_identity(nn.AdaptiveAvgPool2d(places), 3, *size)


def test_adaptive_average_pool_that_keeps_a_side() -> None:
    holds_adjoint_identity(nn.AdaptiveAvgPool2d((None, 2)), 3, 5, 6)
    holds_adjoint_identity(nn.AdaptiveAvgPool2d(1), 3, 5, 6)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_as_in_evaluation(affine: bool) -> None:
    norm = nn.BatchNorm2d(3, affine=affine)
    norm.running_mean, norm.running_var = normal(3), normal(3, seed=1).square()
    holds_adjoint_identity(randomised(norm), 3, 4, 5)


def test_linear_and_flatten() -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.Identity(), nn.Linear(5, 2))
    randomised(layers)
    v = normal(3, 2, 3, 4)
    with torch.no_grad():
        Jv = layers(v) - layers(torch.zeros_like(v))
        g = normal(*Jv.shape, seed=2)
        back = pseudo_gradient(layers, g, input_shape_CHW=(2, 3, 4))
    assert back.shape == v.shape
    torch.testing.assert_close((Jv * g).sum(), (v * back).sum())


@quick
@given(
    convs=st.integers(1, 3),
    kernel=st.sampled_from([1, 3]),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=sizes,
)
def test_adapter(convs: int, kernel: int, channels: tuple[int, int], size: Any) -> None:
    into, out = channels
    spec = AdapterSpec(in_channels=into, out_channels=out, convs=convs, kernel=kernel)
    adapter = Adapter(spec)
    randomised(adapter)
    adapter.beta.fill_(0.7)
    adapter.set_permutation(torch.randperm(into, generator=generator()))
    g = normal(2, out, *size)
    shape = (into, *size)
    expected = slow_gradient(adapter, g, into, size)
    back = pseudo_gradient(adapter, g, input_shape_CHW=shape)
    torch.testing.assert_close(expected, back)
    weights = [conv.weight for conv in adapter.convolutions()]
    target = normal(*back.shape, seed=5)
    slow, fast = (
        torch.autograd.grad((D - target).square().sum(), weights) for D in (expected, back)
    )
    torch.testing.assert_close(slow, fast)


def task_module(split: str = "pool1", **changes: int) -> tuple[nn.Sequential, tuple[int, int, int]]:
    spec = ArchitectureSpec(
        name="small-vgg", split=split, settings={"width": 4, "input_size": 32, **changes}
    )
    module = build_task_module(spec, TASK)
    randomised(module)
    return module, feature_shape(spec)


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("split", ["pool1", "pool3"])
def test_whole_task_module_with_an_enlarged_gradient_and_masks(split: str, size: int) -> None:
    module, shape = task_module(split)
    G = normal(2, 1, size, size)
    masks = {
        path: torch.rand(2, *map_shape, generator=generator(3)) > 0.5
        for path, map_shape in relu_maps(module, input_shape_CHW=shape, size=size).items()
    }
    back = pseudo_gradient(module, G, input_shape_CHW=shape, masks=masks)
    stride = {"pool1": 4, "pool3": 1}[split]  # of the task module as a whole
    assert tuple(n + stride * (size - 1) for n in shape[1:]) == back.shape[2:]
    larger = sliding(module, shape)
    expected = slow_gradient(larger, G, shape[0], tuple(back.shape[2:]), masks)
    torch.testing.assert_close(expected.detach(), back)


def test_masks_take_part() -> None:
    module, shape = task_module()
    G = normal(2, 1)
    module.requires_grad_(False)
    plain = pseudo_gradient(module, G, input_shape_CHW=shape)
    closed = {"relu2_1": torch.zeros(2, 1, 1, 1)}
    assert float(plain.abs().max()) > 0
    assert float(pseudo_gradient(module, G, input_shape_CHW=shape, masks=closed).abs().max()) == 0


def test_relu_maps_stand_lowest_first() -> None:
    module, shape = task_module()
    maps = relu_maps(module, input_shape_CHW=shape, size=3)
    assert list(maps) == ["relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu6"]
    assert maps["relu2_1"] == (8, 24, 24)
    assert maps["relu6"] == (32, 3, 3)


@pytest.mark.parametrize("pixels", [32, 64, 224])
def test_adaptive_pool_of_small_images_takes_enlarged_gradients(pixels: int) -> None:
    layers = nn.Sequential(nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), nn.Linear(2 * 49, 1))
    randomised(layers)
    side = pixels // 32
    back = pseudo_gradient(layers, normal(1, 1, 8, 8), input_shape_CHW=(2, side, side))
    assert back.shape == (1, 2, 2 * side, 2 * side)
    exact = slow_gradient(layers, normal(1, 1), 2, (side, side)).detach()
    torch.testing.assert_close(
        exact, pseudo_gradient(layers, normal(1, 1), input_shape_CHW=(2, side, side))
    )


def test_no_graph_reaches_frozen_modules_and_float32_stays() -> None:
    module, shape = task_module()
    module.requires_grad_(False).float()
    back = pseudo_gradient(module, torch.ones(1, 1), input_shape_CHW=shape)
    assert back.dtype == torch.float32
    assert not back.requires_grad


def test_an_unknown_layer_is_named_with_its_place() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(nn.Tanh()))
    with pytest.raises(TransplantError, match=r"'1\.0' is a Tanh.*add one to .*RULES"):
        pseudo_gradient(layers, torch.ones(1, 1, 4, 4), input_shape_CHW=(1, 4, 4))


def test_a_layer_whose_rule_was_added_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    class DoubleRule:
        def __init__(self, _: Double, site: Site) -> None:
            self.output_shape = site.shape

        def adjoint(self, gradient: Tensor) -> Tensor:
            return 2 * gradient

    monkeypatch.setitem(RULES, Double, DoubleRule)
    holds_adjoint_identity(Double(), 2, 3, 3)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv2d(3, 1, 1), (2, 4, 4), "takes a map of 3 channels and gets shape"),
        (nn.Conv2d(2, 1, 5), (2, 4, 4), "covers .* pixels"),
        (nn.Conv2d(2, 1, 3, padding=1, padding_mode="reflect"), (2, 4, 4), "'reflect'"),
        (nn.Linear(3, 1), (2, 4, 4), "takes 3 features"),
        (nn.Flatten(2), (2, 4, 4), "flattens dimensions 2 to -1"),
        (nn.MaxPool2d(2, dilation=2), (2, 4, 4), "dilation 2"),
        (nn.BatchNorm2d(2, track_running_stats=False), (2, 4, 4), "no running statistics"),
        (nn.AvgPool2d(2), (2,), "takes a map and gets shape"),
    ],
)
def test_a_layer_that_cannot_stand_there_is_refused(
    layer: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(TransplantError, match=message):
        pseudo_gradient(layer, torch.ones(1, 1, 4, 4), input_shape_CHW=shape)


@pytest.mark.parametrize("G", [torch.ones(1, 2), torch.ones(1), torch.ones(1, 2, 3, 3)])
def test_a_gradient_of_another_width_is_refused(G: Tensor) -> None:
    module, shape = task_module()
    with pytest.raises(TransplantError, match=r"G must be \(N, 1\)"):
        pseudo_gradient(module, G, input_shape_CHW=shape)


def test_a_mask_for_no_relu_is_refused() -> None:
    module, shape = task_module()
    with pytest.raises(TransplantError, match="relu9_9"):
        pseudo_gradient(
            module, torch.ones(1, 1), input_shape_CHW=shape, masks={"relu9_9": torch.ones(1)}
        )


def test_results_do_not_depend_on_what_else_is_in_the_batch() -> None:
    module, shape = task_module()
    G = normal(3, 1, 2, 2)
    together = pseudo_gradient(module, G, input_shape_CHW=shape)
    for place, alone in itertools.islice(enumerate(G), 3):
        expected = pseudo_gradient(module, alone[None], input_shape_CHW=shape)
        torch.testing.assert_close(expected[0], together[place])
