"""The augmented net: what it computes, what it holds still, what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from rootstock.common.errors import TransplantError
from rootstock.common.nets.architectures import build_category_module, build_head
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nets.tailored.blocks import PROXY_STD, Proxy, UniversalBlock
from rootstock.common.nets.tailored.paths import Path
from rootstock.common.nettailor.augmented import AugmentedNet, activations, stages
from tests.support.nettailor_nets import CLASSES, SHAPE, augmented, backbone, images, stir


@torch.no_grad()
def test_a_universal_block_with_its_last_relu_is_the_block() -> None:
    f, _ = backbone()
    x = images(2)
    for name, block in f.named_children():
        if name.startswith("block"):
            before_relu = UniversalBlock(copy.deepcopy(block))(x)
            assert float(before_relu.min()) < 0
            assert torch.equal(F.relu(before_relu), block(x))
        x = block(x)


@torch.no_grad()
def test_a_node_pools_its_block_and_its_proxies_by_attention() -> None:
    net = augmented(blocks=1).eval()
    stir(net, seed=3)
    for logits_P, values in zip(
        net.attention, ([0.5, 0.1], [0.2, -1, 2], [0, 1, -0.3, 0.8]), strict=True
    ):
        logits_P.copy_(torch.tensor(values))
    x0 = net.stem(images(2))
    p = net.paths
    a1, a2, a3 = (logits_P.softmax(0) for logits_P in net.attention)
    x1 = F.relu(a1[0] * p["block1_1"](x0) + a1[1] * p["proxy1_block1_1"](x0))
    x2 = F.relu(
        a2[0] * p["block2_1"](x1)
        + a2[1] * p["proxy1_block2_1"](x1)
        + a2[2] * p["proxy2_block2_1"](x0)
    )
    x3 = F.relu(
        a3[0] * p["block3_1"](x2)
        + a3[1] * p["proxy1_block3_1"](x2)
        + a3[2] * p["proxy2_block3_1"](x1)
        + a3[3] * p["proxy3_block3_1"](x0)
    )
    found = net.activations(images(2))
    assert list(found.nodes) == [1, 2, 3]
    for node, expected in enumerate((x1, x2, x3), start=1):
        torch.testing.assert_close(found.nodes[node], expected)
    torch.testing.assert_close(found.logits, (net.head(x3),))
    assert torch.equal(net(images(2)), found.logits[0])


def test_a_proxy_pools_where_maps_shrink() -> None:
    generator = torch.Generator().manual_seed(0)
    for stride in (1, 2, 4):
        proxy = Proxy((6, 32, 32), (8, 32 // stride, 32 // stride), generator).eval()
        pools = [layer for layer in proxy if isinstance(layer, nn.MaxPool2d)]
        assert len(pools) == (stride > 1)
        for pool in pools:
            assert (pool.kernel_size, pool.stride, pool.padding) == (
                stride + 1,
                stride,
                stride // 2,
            )
        x = torch.randn(2, 6, 32, 32)
        assert proxy(x).shape == (2, 8, 32 // stride, 32 // stride)
        assert next(layer for layer in proxy if isinstance(layer, nn.Conv2d)).bias is None
    wide = Proxy((64, 8, 8), (128, 8, 8), generator)
    assert float(wide.get_parameter("0.weight").detach().std()) == pytest.approx(
        PROXY_STD, rel=0.05
    )
    with pytest.raises(TransplantError, match="7×7 to one of 4×4"):
        Proxy((6, 7, 7), (8, 4, 4), generator)


def test_attention_starts_with_the_pre_trained_blocks_and_is_over_what_is_kept() -> None:
    net = augmented(blocks=2)
    alphas = net.alphas()
    e = torch.tensor(4.0).exp()
    torch.testing.assert_close(alphas[Path(5, 0)], e / (e + 3))
    assert all(
        sum(float(a.detach()) for p, a in alphas.items() if p.target == node) == pytest.approx(1)
        for node in range(1, 7)
    )
    fewer = net.restricted(set(alphas) - {Path(5, 0), Path(5, 1)}).alphas()
    torch.testing.assert_close(fewer[Path(5, 2)], torch.tensor(0.5))
    assert Path(5, 0) not in fewer


def test_the_same_seed_gives_the_same_net_and_leaves_the_global_state_alone() -> None:
    f, g = backbone()
    before = torch.get_rng_state()
    one, same, other = (AugmentedNet(f, g, SHAPE, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    x = images(2)
    assert torch.equal(one.eval()(x), same.eval()(x))
    assert not torch.equal(one(x), other.eval()(x))


def test_what_is_shared_stays_frozen_and_in_evaluation_mode() -> None:
    net = augmented().train().requires_grad_()
    shared = [parameter for module in net.shared() for parameter in module.parameters()]
    assert not any(parameter.requires_grad for parameter in shared)
    assert all(parameter.requires_grad for parameter in net.own())
    own = {id(parameter) for parameter in (*net.own(), *net.attention.parameters())}
    everything = {id(parameter) for parameter in net.parameters()}
    assert own.isdisjoint(map(id, shared))
    assert own.union(map(id, shared)) == everything
    norms = {
        name: layer.training
        for name, layer in net.named_modules()
        if isinstance(layer, nn.BatchNorm2d)
    }
    assert {training for name, training in norms.items() if "proxy" in name} == {True}
    assert {training for name, training in norms.items() if "proxy" not in name} == {False}


def test_a_node_that_nothing_reads_is_not_computed() -> None:
    net = augmented(blocks=1)
    left = net.restricted({Path(1, 0), Path(2, 0), Path(3, 2)})  # nothing reads node 2
    assert left.kept == {Path(1, 0), Path(3, 2)}
    assert list(left.eval().activations(images(1)).nodes) == [1, 3]
    assert len(net.kept) == 9  # the net that was restricted is as it was
    with pytest.raises(TransplantError, match="no path is left"):
        net.restricted({Path(1, 0), Path(3, 0)})


@torch.no_grad()
def test_a_teachers_activations_are_its_blocks_outputs() -> None:
    f, g = backbone(blocks=2)
    found = activations(f, g, images(2))
    assert list(found.nodes) == [1, 2, 3, 4, 5, 6]
    assert torch.equal(found.nodes[6], f(images(2)))
    assert torch.equal(found.logits[0], g(f(images(2))))


def test_torchvisions_layout_is_taken_apart_too() -> None:
    spec = ArchitectureSpec(name="resnet18", split="block4_2", settings={"input_size": 32})
    f, g = build_category_module(spec), build_head(spec, CLASSES)
    assert list(stages(f).blocks) == [f"block{s}_{b}" for s in range(1, 5) for b in (1, 2)]
    net = AugmentedNet(f, g, SHAPE, seed=0).eval()
    with torch.no_grad():
        assert net(images(2)).shape == (2, CLASSES)


def test_a_backbone_without_blocks_to_prune_is_refused() -> None:
    plain = build_category_module(ArchitectureSpec(name="small-vgg", split="pool2"))
    head = build_head(ArchitectureSpec(name="small-vgg", split="pool2"), CLASSES)
    with pytest.raises(TransplantError, match=r"no residual blocks to prune.*small-resnet"):
        AugmentedNet(plain, head, SHAPE, seed=0)
    f, g = backbone()
    with pytest.raises(TransplantError, match="must be its last layers"):
        AugmentedNet(f.append(nn.ReLU()), g, SHAPE, seed=0)
