"""Matching losses against the formula written out, and which layers are read and paired."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812

from rootstock.common.errors import TransplantError
from rootstock.common.l2t.distances import distances, wanted
from rootstock.common.l2t.matching import (
    Matching,
    MetaNetworks,
    Pair,
    all_to_all,
    matching_loss,
    one_to_one,
    single,
)
from rootstock.common.l2t.student import Student, readable
from rootstock.common.l2t.taps import Source, map_shapes, stage_ends
from rootstock.common.nets.architectures import build_category_module, build_head, input_shape
from rootstock.common.nets.spec import ArchitectureSpec, Setting
from tests.support import l2t_nets
from tests.support.layers import layer, weight


@pytest.mark.parametrize(
    ("channels", "size"), [(3, (12, 10)), (200, (12, 10)), (120, (12, 10))]
)  # multiplied out, on maps, and just not multiplied out
@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_distances_are_the_formulas(
    channels: int, size: tuple[int, int], format_: torch.memory_format
) -> None:
    torch.manual_seed(0)
    target = torch.randn(4, channels, *size, dtype=torch.float64).to(memory_format=format_)
    sizes = [(5, *size), (2, 3, 5), (4, 24, 20), (3, 12, 5), (2, 24, 5), (1, 1, 1)]
    maps = [torch.randn(4, *s, dtype=torch.float64).to(memory_format=format_) for s in sizes]
    r = nn.Conv2d(channels, sum(s[0] for s in sizes), 1).double()
    found_NS = distances(target, r, wanted(maps, channels, size))
    enlarged = [F.interpolate(m, size, mode="bilinear") for m in maps]
    expected_NS = (r(target) - torch.cat(enlarged, 1)).square().mean((2, 3))
    torch.testing.assert_close(found_NS, expected_NS)


def test_the_loss_is_the_papers_over_all_pairs() -> None:
    """Pair by pair with loops, from the equations of section 2."""
    case = l2t_nets.case()
    held, pooled = case.held()
    weights = case.metas(pooled)
    run = case.student(case.x_NCHW, held)
    loss = matching_loss(run.distances_NK, weights.product())
    regressors = dict(zip(case.student.targets, case.student.regressors, strict=True))
    total, used = torch.zeros((), dtype=torch.float64), dict.fromkeys(regressors, 0)
    for place, pair in enumerate(case.matching.pairs):
        s_NCHW = case.sources[pair.source](case.x_NCHW).features[pair.layer]
        t_NTHW = run.features[pair.target]
        first = used[pair.target]
        used[pair.target] += s_NCHW.shape[1]
        r = layer(regressors[pair.target], "", nn.Conv2d)
        what = layer(case.metas.what, str(place), nn.Linear)
        where = layer(case.metas.where, str(place), nn.Linear)
        assert r.bias is not None
        for image in range(len(s_NCHW)):
            mean_C = s_NCHW[image].mean((1, 2))
            w_C = torch.softmax(what.weight @ mean_C + what.bias, 0)
            amount = (where.weight[0] @ mean_C + where.bias[0]).clamp(0, 6)
            s_CHW = F.interpolate(s_NCHW[image, None], t_NTHW.shape[2:], mode="bilinear")[0]
            for channel in range(len(s_CHW)):
                brought = torch.einsum(
                    "t,tij->ij", r.weight[first + channel, :, 0, 0], t_NTHW[image]
                )
                away = brought + r.bias[first + channel] - s_CHW[channel]
                total = total + amount * w_C[channel] * away.square().mean() / len(s_NCHW)
    torch.testing.assert_close(loss, total)


def test_meta_networks_start_uniform_and_at_one() -> None:
    torch.manual_seed(0)
    pooled = [torch.rand(5, 4), torch.rand(5, 3)]
    metas = MetaNetworks((4, 3))
    weights = metas(pooled)
    assert torch.equal(weights.what[0], torch.full((5, 4), 0.25))
    assert torch.equal(weights.where[0], torch.ones(5))
    weights.where[0].sum().backward()  # from there λ can learn to depend on the image
    grad = weight(metas.where, "0").grad
    assert grad is not None
    assert grad.abs().min() > 0
    for frozen, parameters in ((metas.where, 4 * 5 + 3 * 4), (metas.what, 0)):  # L2T-w, FM
        frozen.requires_grad_(False)
        assert sum(p.numel() for p in metas.parameters() if p.requires_grad) == parameters
        weights = metas(pooled)
        torch.testing.assert_close(weights.what[1], torch.full((5, 3), 1 / 3))
        assert torch.equal(weights.where[1], torch.ones(5))
        assert weights.product().shape == (5, 7)


def test_lambda_lies_between_0_and_6() -> None:
    metas = MetaNetworks((2,))
    with torch.no_grad():
        weight(metas.where, "0").copy_(torch.tensor([[10.0, -10.0]]))
    (where_N,) = metas([torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 0.0]])]).where
    torch.testing.assert_close(where_N, torch.tensor([6.0, 0.0, 2.0]))


@pytest.mark.parametrize(
    ("name", "split", "settings", "ends"),
    [
        ("small-vgg", "pool2", {"width": 4}, ("relu1_2", "relu2_2", "g/relu3_2")),
        ("small-vgg", "pool3", {"width": 4}, ("relu1_2", "relu2_2", "relu3_2")),
        (
            "small-resnet",
            "block2_1",
            {"width": 4, "blocks": 2},
            ("block1_2", "g/block2_2", "g/block3_2"),
        ),
        (
            "resnet18",
            "block2_2",
            {"input_size": 64},
            ("relu1", "block1_2", "block2_2", "g/block3_2", "g/block4_2"),
        ),
    ],
)
def test_a_students_layers_are_read_where_stages_end(
    name: str, split: str, settings: dict[str, Setting], ends: tuple[str, ...]
) -> None:
    spec = ArchitectureSpec(name=name, split=split, settings=settings)
    f, g = build_category_module(spec), build_head(spec, 2)
    found = readable(f, {"g": g}, input_shape(spec))
    assert found.ends == ends
    student = Student(f, {"g": g}, read=ends).eval()
    x = torch.randn(2, *input_shape(spec))
    whole = student(x)
    assert {n: tuple(m.shape[1:]) for n, m in whole.features.items()} == {
        n: found.shapes[n] for n in ends
    }
    assert torch.equal(whole.outputs["g"], g(f(x)))
    part = student(x, to_end=False)
    assert part.outputs == {}
    assert all(torch.equal(part.features[n], whole.features[n]) for n in ends)


def test_nothing_runs_above_the_last_layer_that_is_read() -> None:
    f, g = l2t_nets.cut(l2t_nets.net((3, 5), 3, 0), "act2")
    ran: list[str] = []
    for name, module in (*f.named_children(), *g.named_children()):
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    student = Student(f, {"head": g}, read=["act1"])
    student(torch.randn(1, *l2t_nets.IMAGE), to_end=False)
    assert ran == ["conv1", "act1"]
    ran.clear()
    Student(f, {"head": g}, read=["head/pool2"])(torch.randn(1, *l2t_nets.IMAGE), to_end=False)
    assert ran == ["conv1", "act1", "pool1", "conv2", "act2", "pool2"]


def test_a_torchvision_source_is_read_where_its_stages_end_and_stays_as_it_is() -> None:
    torch.manual_seed(0)
    net = torchvision.models.get_model("resnet18", weights=None)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    source = Source(net, None, (3, 64, 64)).train()
    assert list(source.shapes) == ["relu", "layer1", "layer2", "layer3", "layer4"]
    x = torch.randn(2, 3, 64, 64)
    seen = source(x)
    assert {name: tuple(m.shape[1:]) for name, m in seen.features.items()} == source.shapes
    expected = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    torch.testing.assert_close(seen.features["layer1"], net.layer1(expected))
    assert seen.outputs.shape == (2, 1000)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(p.requires_grad for p in net.parameters())


def test_squeeze_and_excitation_ends_no_stage() -> None:
    net = torchvision.models.get_model("mobilenet_v3_small", weights=None)
    sides = [side for _, side, _ in map_shapes(net, (3, 64, 64)).values()]
    assert 1 in sides[: len(sides) // 2]
    shapes = map_shapes(net, (3, 64, 64))
    assert [shapes[name][1] for name in stage_ends(shapes)] == [32, 16, 8, 4, 2]


def test_ways_to_pair_layers() -> None:
    case = l2t_nets.case()
    shapes = {name: source.shapes for name, source in case.sources.items()}
    assert [list(layers) for layers in shapes.values()] == [
        ["act1", "act2"],
        ["act1", "act2", "act3"],
    ]
    assert case.target.ends == ("act1", "head/act2")
    assert len(all_to_all(shapes, case.target)) == 10
    assert [str(pair) for pair in one_to_one(shapes, case.target)] == [
        "s0/act2->head/act2", "s0/act1->act1", "s1/act3->head/act2", "s1/act2->act1",
    ]  # fmt: skip
    assert [str(pair) for pair in single(shapes, case.target)] == [
        "s0/act2->head/act2", "s1/act3->head/act2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "no pair"),
        ([Pair("s0", "act1", "act1")] * 2, "s0/act1->act1 is there twice"),
        ([Pair("s9", "act1", "act1")], "no source 's9'; there are s0, s1"),
        ([Pair("s0", "act9", "act1")], "source 's0' has no feature map at 'act9'; it has at act1"),
        ([Pair("s0", "act1", "act2")], "target has no feature map at 'act2'; it has at conv1"),
    ],
)
def test_pairs_that_do_not_exist_are_refused(pairs: list[Pair], said: str) -> None:
    case = l2t_nets.case()
    shapes = {name: source.shapes for name, source in case.sources.items()}
    Matching([Pair("s0", "act1", "act1")], shapes, case.target)  # and one that does is not
    with pytest.raises(TransplantError, match=said):
        Matching(pairs, shapes, case.target)


def test_a_source_without_such_a_layer_is_refused() -> None:
    with pytest.raises(TransplantError, match="the source has no feature map at 'fc'; it has at"):
        Source(l2t_nets.net((3,), 2, 0), ["fc"], l2t_nets.IMAGE)
