from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import efficientnet, mobilenet_v2, mobilenetv3, resnet18
from torchvision.models.convnext import CNBlock, LayerNorm2d
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation

from rootstock.common.distillation.pseudo_gradients.adjoint import (
    output_shape,
    pseudo_gradient,
    relu_maps,
)
from rootstock.common.errors import TransplantError
from rootstock.common.nets.architectures import build_head, build_task_module, feature_shape
from rootstock.common.nets.branches import PaddedShortcut, SkipFusion
from rootstock.common.nets.declaration import sequence
from rootstock.common.nets.spec import ArchitectureSpec, Setting, TaskSpec
from rootstock.common.nets.vgg import Fcn
from tests.oracles.double_backward import linearised, slow_gradient

quick = settings(max_examples=25, deadline=None)
sizes = st.tuples(st.integers(5, 11), st.integers(5, 11))
strides = st.integers(1, 3)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    """Double precision, weights and running statistics from a seed, evaluation mode."""
    module.double().eval()
    with torch.no_grad():
        for place, (name, tensor) in enumerate(module.state_dict().items()):
            if name.endswith("running_var"):
                tensor.copy_(0.1 + normal(*tensor.shape, seed=place).square())
            elif tensor.is_floating_point():
                tensor.copy_(normal(*tensor.shape, seed=place))
    return module


def drawn_masks(module: nn.Module, shape: tuple[int, ...], size: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        path: torch.rand(2, *map_shape, generator=generator) > 0.5
        for path, map_shape in relu_maps(module, input_shape_CHW=shape, size=size).items()
    }


def agrees_with_autograd(module: nn.Module, *shape: int) -> None:
    """D' by dummy-1 and by dummy-2 at every ReLU, and <J v, g> = <v, J^T g>."""
    randomised(module)
    linear = linearised(module)
    v = normal(2, *shape, seed=1)
    Jv = linear(v).detach()
    assert output_shape(module, shape) == Jv.shape[1:]
    g = normal(*Jv.shape, seed=2)
    masks = drawn_masks(module, shape)
    with torch.no_grad():
        back = pseudo_gradient(module, g, input_shape_CHW=shape)
        masked = pseudo_gradient(module, g, input_shape_CHW=shape, masks=masks)
    assert back.shape == v.shape
    torch.testing.assert_close((Jv * g).sum(), (v * back).sum(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back, slow_gradient(module, g, shape[0], shape[1:]))
    torch.testing.assert_close(masked, slow_gradient(module, g, shape[0], shape[1:], masks))


@quick
@given(size=sizes, stride=strides, grows=st.booleans(), option=st.sampled_from("AB"))
def test_basic_block(size: Any, stride: int, grows: bool, option: str) -> None:
    out = 5 if grows else 3
    shortcut: nn.Module | None = None
    if stride > 1 or grows:
        projection = nn.Sequential(nn.Conv2d(3, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        shortcut = projection if option == "B" else PaddedShortcut(3, out, stride)
    agrees_with_autograd(BasicBlock(3, out, stride, shortcut), 3, *size)


@quick
@given(size=sizes, stride=strides, groups=st.sampled_from([1, 2]), dilation=st.integers(1, 2))
def test_bottleneck(size: Any, stride: int, groups: int, dilation: int) -> None:
    shortcut = nn.Sequential(nn.Conv2d(3, 8, 1, stride, bias=False), nn.BatchNorm2d(8))
    block = Bottleneck(3, 2, stride, shortcut, groups=groups, dilation=dilation)
    agrees_with_autograd(block, 3, *size)


@quick
@given(
    size=sizes,
    stride=st.integers(1, 2),
    expand=st.sampled_from([1, 2, 3]),
    out=st.sampled_from([3, 4]),
)
def test_inverted_residual(size: Any, stride: int, expand: int, out: int) -> None:
    agrees_with_autograd(InvertedResidual(3, out, stride, expand), 3, *size)


@pytest.mark.parametrize("gate", [nn.SiLU, nn.GELU, nn.Hardswish])
def test_a_smooth_gate_is_a_relu_s(gate: type[nn.Module]) -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), gate(), nn.Conv2d(3, 1, 1))
    agrees_with_autograd(module, 2, 5, 6)
    assert list(relu_maps(module, input_shape_CHW=(2, 5, 6))) == ["1"]


def test_far_from_zero_a_smooth_gate_is_open_or_shut_as_a_relu() -> None:
    """Why one mask serves all of them: their derivatives meet on either side."""
    x = torch.tensor([-30.0, 30.0], dtype=torch.float64, requires_grad=True)
    for gate in (nn.ReLU(), nn.SiLU(), nn.GELU(), nn.Hardswish()):
        (derivative,) = torch.autograd.grad(gate(x).sum(), x)
        torch.testing.assert_close(derivative, x.new_tensor([0.0, 1.0]), rtol=0, atol=1e-9)


@quick
@given(size=sizes, channels=st.integers(1, 6))
def test_squeeze_and_excitation(size: Any, channels: int) -> None:
    agrees_with_autograd(SqueezeExcitation(channels, 2), channels, *size)


def test_the_gate_is_what_biases_say() -> None:
    gated = SqueezeExcitation(2, 1)
    randomised(gated)
    g = normal(1, 2, 3, 3)
    at_zero = gated._scale(torch.zeros(1, 2, 3, 3, dtype=torch.float64)).detach()
    torch.testing.assert_close(pseudo_gradient(gated, g, input_shape_CHW=(2, 3, 3)), g * at_zero)
    assert 0 < float(at_zero.min()) < 1


@quick
@given(size=sizes, expanded=st.sampled_from([8, 16]), gated=st.booleans(), hard=st.booleans())
def test_mobilenetv3_s_block(size: Any, expanded: int, gated: bool, hard: bool) -> None:
    activation = "HS" if hard else "RE"
    config = mobilenetv3.InvertedResidualConfig(8, 3, expanded, 8, gated, activation, 1, 1, 1.0)
    agrees_with_autograd(mobilenetv3.InvertedResidual(config, nn.BatchNorm2d), 8, *size)


@quick
@given(size=sizes, stride=st.integers(1, 2), kind=st.sampled_from(["MBConv", "FusedMBConv"]))
def test_efficientnet_s_own_blocks(size: Any, stride: int, kind: str) -> None:
    config = getattr(efficientnet, f"{kind}Config")(4, 3, stride, 8, 8, 1)
    block = getattr(efficientnet, kind)(config, 0.2, nn.BatchNorm2d)
    agrees_with_autograd(block, 8, *size)


@quick
@given(size=sizes, channels=st.integers(2, 4))
def test_convnext_s_block(size: Any, channels: int) -> None:
    agrees_with_autograd(CNBlock(channels, 0.5, 0.1), channels, *size)


@quick
@given(size=sizes, channels=st.integers(2, 5))
def test_a_norm_over_channels(size: Any, channels: int) -> None:
    agrees_with_autograd(LayerNorm2d(channels), channels, *size)


@quick
@given(size=sizes, kernel=st.integers(1, 3), stride=strides, depthwise=st.booleans())
def test_convolution_norm_activation(size: Any, kernel: int, stride: int, depthwise: bool) -> None:
    groups = 4 if depthwise else 1
    block = Conv2dNormActivation(4, 8, kernel, stride, groups=groups, activation_layer=nn.ReLU6)
    agrees_with_autograd(block, 4, *size)


@quick
@given(size=sizes, stride=strides, channels=st.tuples(st.integers(1, 3), st.integers(0, 3)))
def test_padded_shortcut(size: Any, stride: int, channels: tuple[int, int]) -> None:
    below, more = channels
    agrees_with_autograd(PaddedShortcut(below, below + more, stride), below, *size)


@quick
@given(
    size=sizes,
    kernel=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    stride=st.tuples(strides, strides),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    spare=st.integers(0, 1),
    groups=st.sampled_from([1, 2]),
)
def test_transposed_convolution(
    size: Any, kernel: Any, stride: Any, padding: Any, dilation: int, spare: int, groups: int
) -> None:
    spare = min(spare, max(min(stride), dilation) - 1)
    layer = nn.ConvTranspose2d(
        4, 6, kernel, stride, padding, spare, groups=groups, dilation=dilation
    )
    agrees_with_autograd(layer, 4, *size)


@quick
@given(places=st.integers(2, 4), pool=st.integers(2, 3))
def test_skip_fusion(places: int, pool: int) -> None:
    deep = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(pool),
        nn.ConvTranspose2d(4, 2, pool, pool),
    )
    skip = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    agrees_with_autograd(SkipFusion(deep, skip), 3, pool * places, pool * (places + 1))


def small_fcn8s() -> nn.Sequential:
    """Above pool1, whose maps are half as large as the image."""
    widths = ((2,), (3,), (3,), (2,), (2,))
    return sequence(Fcn(widths, (2, 2), kernel=3, outputs=2).layers("pool1"))


def test_fcn8s() -> None:
    agrees_with_autograd(small_fcn8s(), 2, 32, 48)


@pytest.mark.parametrize(
    ("name", "split", "settings"),
    [
        ("torchvision:mobilenet_v3_small", "features_7", {"input_size": 32}),
        ("efficientnet-lite0", "block11", {"input_size": 32}),
        ("mobilenetv2", "block10", {"input_size": 32, "width": 0.25}),
        ("small-resnet", "block1_1", {"blocks": 1, "width": 4}),
    ],
)
def test_a_net_that_pools_made_fully_convolutional(
    name: str, split: str, settings: dict[str, Setting]
) -> None:
    spec = ArchitectureSpec(name=name, split=split, settings=settings)
    task = TaskSpec(name="segmentation", kind="binary-segmentation")
    agrees_with_autograd(build_task_module(spec, task), *feature_shape(spec))


def test_fcn8s_starts_bilinear() -> None:
    """Upsampled constants stay constants away from the border."""
    module = small_fcn8s()
    upscore = module.get_submodule("upscore8")
    with torch.no_grad():
        above = upscore(torch.ones(1, 2, 4, 4))
    torch.testing.assert_close(above[:, :, 8:-8, 8:-8], torch.ones(1, 2, 16, 16))


def test_an_enlarged_gradient_of_fcn8s() -> None:
    module = randomised(small_fcn8s())
    g = normal(1, 2, 64 + 32, 64 + 32)
    with torch.no_grad():
        back = pseudo_gradient(module, g, input_shape_CHW=(2, 32, 32))
    torch.testing.assert_close(back, slow_gradient(module, g, 2, (32 + 16, 32 + 16)))
    with pytest.raises(TransplantError, match=r"'fuse3\.deep\.upscore4' upsamples"):
        pseudo_gradient(module, g[:, :, 8:, 8:], input_shape_CHW=(2, 32, 32))


@pytest.mark.parametrize("size", [1, 3])
def test_a_residual_task_module_with_an_enlarged_gradient(size: int) -> None:
    """Away from global pooling, S×S places belong to an input that is larger by the stride."""
    projection = nn.Sequential(nn.Conv2d(3, 4, 1, 2, bias=False), nn.BatchNorm2d(4))
    block = BasicBlock(3, 4, 2, projection)
    module = nn.Sequential(block, nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2), nn.ReLU6())
    randomised(module)
    # The nominal output is 2×2; G is larger.
    g = normal(2, 2, 1 + size, 1 + size)
    with torch.no_grad():
        back = pseudo_gradient(module, g, input_shape_CHW=(3, 8, 8))
    assert back.shape[2:] == (8 + 2 * (size - 1),) * 2
    torch.testing.assert_close(back, slow_gradient(module, g, 3, tuple(back.shape[2:])))


@pytest.mark.parametrize("net", [resnet18, mobilenet_v2])
def test_torchvisions_own_nets(net: Any) -> None:
    """All of it, as it stands, at a small size; dummy-2 at every ReLU of every block."""
    whole = net(weights=None, num_classes=1)
    if hasattr(whole, "features"):
        layers = [*whole.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), whole.classifier]
    else:
        layers = [layer for name, layer in whole.named_children() if name != "fc"]
        layers += [nn.Flatten(), whole.fc]
    module = nn.Sequential(*layers).double().eval()
    shape = (3, 40, 40)
    assert output_shape(module, shape) == (1,)
    g = normal(2, 1)
    masks = drawn_masks(module, shape)
    assert len(masks) == {resnet18: 1 + 8 * 2, mobilenet_v2: 2 + 16 * 2 + 1}[net]
    with torch.no_grad():
        masked = pseudo_gradient(module, g, input_shape_CHW=shape, masks=masks)
    expected = slow_gradient(module, g, 3, (40, 40), masks).detach()
    assert float(expected.norm()) > 0
    torch.testing.assert_close(masked, expected, rtol=1e-7, atol=1e-9 * float(expected.norm()))


def test_relus_of_blocks_are_named_and_ordered() -> None:
    blocks = nn.Sequential(BasicBlock(2, 2), InvertedResidual(2, 2, 1, 2), Bottleneck(2, 1))
    maps = relu_maps(blocks[:2], input_shape_CHW=(2, 4, 4))
    assert list(maps) == ["0.relu1", "0.relu2", "1.conv.0.2", "1.conv.1.2"]
    bottleneck = Bottleneck(4, 1)
    assert list(relu_maps(bottleneck, input_shape_CHW=(4, 4, 4))) == ["relu1", "relu2", "relu3"]


def test_a_layer_that_stands_at_two_places_counts_twice() -> None:
    conv = nn.Conv2d(2, 2, 1)
    agrees_with_autograd(nn.Sequential(conv, nn.ReLU(), conv), 2, 3, 3)


def test_an_unknown_layer_inside_a_block_is_named_with_its_place() -> None:
    block = BasicBlock(2, 2)
    block.bn2 = nn.GroupNorm(1, 2)
    with pytest.raises(TransplantError, match=r"'0\.bn2' is a GroupNorm.*BasicBlock"):
        pseudo_gradient(nn.Sequential(block), torch.ones(1, 2, 4, 4), input_shape_CHW=(2, 4, 4))


def negative_variance() -> nn.Module:
    norm = nn.BatchNorm2d(2)
    norm.running_var = torch.tensor([1.0, -1.0])
    return nn.Sequential(norm)


def upsampler() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(2, 1, 2, 2))


@pytest.mark.parametrize(
    ("module", "g", "message"),
    [
        (nn.Sequential(BasicBlock(2, 3)), (1, 3, 6, 6), r"'0' adds a branch.*\(3, 6, 6\)"),
        (negative_variance(), (1, 2, 6, 6), "'0' has a negative running variance"),
        (upsampler(), (1, 1, 13, 13), "enlarge G by multiples"),
        (
            nn.Sequential(SkipFusion(nn.Conv2d(2, 1, 1), nn.Conv2d(2, 3, 1))),
            (1, 1, 6, 6),
            r"'0' adds a map of \(3, 6, 6\) to one of \(1, 6, 6\)",
        ),
        (
            nn.Sequential(SkipFusion(nn.AdaptiveAvgPool2d(3), nn.Conv2d(2, 2, 4))),
            (1, 2, 4, 4),
            "belongs to an input of",
        ),
        (SqueezeExcitation(3, 1), (1, 2, 6, 6), r"gates 3 channels and gets shape \(2, 6, 6\)"),
        (LayerNorm2d(6), (1, 2, 6, 6), r"normalises \(6,\) and gets 2 channels"),
    ],
)
def test_what_cannot_stand_there_is_refused(
    module: nn.Module, g: tuple[int, ...], message: str
) -> None:
    with pytest.raises(TransplantError, match=message):
        pseudo_gradient(module, torch.ones(g), input_shape_CHW=(2, 6, 6))


def test_layers_refuse_what_they_cannot_do() -> None:
    with pytest.raises(TransplantError, match="cannot take 3 channels to 2"):
        PaddedShortcut(3, 2, 1)


def test_efficientnet_s_blocks() -> None:
    spec = ArchitectureSpec(name="efficientnet-lite0", split="block11", settings={"input_size": 64})
    g = build_head(spec, 2)
    agrees_with_autograd(nn.Sequential(*list(g.children())[:2]), 112, 4, 4)
    assert output_shape(g, (112, 4, 4)) == (2,)


@pytest.mark.parametrize("padding", [(1, 2, 1, 2), (0, 1, 3, 0), (0, 0, 0, 0)])
def test_zeros_around_a_map(padding: tuple[int, int, int, int]) -> None:
    agrees_with_autograd(nn.Sequential(nn.ZeroPad2d(padding), nn.Conv2d(2, 3, 3, 2)), 2, 6, 8)


def test_zeros_that_cut_are_refused() -> None:
    with pytest.raises(TransplantError, match=r"layer '0' pads by .*: it cuts the map"):
        output_shape(nn.Sequential(nn.ZeroPad2d((-1, 0, 0, 0))), (2, 6, 8))
