"""ResNets and MobileNetV2: what they are, where they split, and that weights of theirs travel."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18, resnet34, resnet50

from rootstock.common.distillation.pseudo_gradients.adjoint import output_shape, relu_maps
from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import (
    ARCHITECTURES,
    build_category_module,
    build_task_module,
    feature_shape,
    initial_modules,
    input_shape,
    last_layer,
    projected,
)
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.schema import layout, require_fit
from tests.support.layers import weight

TASK = TaskSpec(name="classification")


def spec(name: str, split: str, **settings: Any) -> ArchitectureSpec:
    return ArchitectureSpec(name=name, split=split, settings=settings)


def whole(architecture: ArchitectureSpec) -> nn.Sequential:
    return nn.Sequential(
        build_category_module(architecture), build_task_module(architecture, TASK)
    ).eval()


def counted(architecture: ArchitectureSpec, kind: type[nn.Module]) -> int:
    return sum(isinstance(layer, kind) for layer in whole(architecture).modules())


@pytest.mark.parametrize(
    ("name", "split", "theirs"),
    [
        ("resnet18", "block2_2", resnet18),
        ("resnet34", "block3_6", resnet34),
        ("resnet50", "block2_4", resnet50),
        ("mobilenetv2", "block6", mobilenet_v2),
    ],
)
@torch.no_grad()
def test_nets_compute_what_torchvisions_do(name: str, split: str, theirs: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = theirs(weights=None, num_classes=1).eval()
    ours = whole(spec(name, split, input_size=64))
    values = list(expected.state_dict().values())
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(images), expected(images))


@pytest.mark.parametrize(("blocks", "layers"), [(3, 20), (9, 56)])
def test_a_small_resnet_has_six_n_plus_two_layers(blocks: int, layers: int) -> None:
    architecture = spec("small-resnet", "block2_1", blocks=blocks, width=4)
    weighted = counted(architecture, nn.Conv2d) + counted(architecture, nn.Linear)
    assert weighted == layers
    projected = spec("small-resnet", "block2_1", blocks=blocks, width=4, shortcut="B")
    assert counted(projected, nn.Conv2d) == layers - 1 + 2


@pytest.mark.parametrize(("blocks", "convolutions"), [(1, 10), (4, 28)])
def test_a_wide_resnet_has_six_n_plus_four_convolutions(blocks: int, convolutions: int) -> None:
    architecture = spec("wide-resnet", "block2_1", blocks=blocks, widen=2)
    assert counted(architecture, nn.Conv2d) == convolutions
    widths = [feature_shape(spec("wide-resnet", f"block{stage}_1"))[0] for stage in (1, 2, 3)]
    assert widths == [64, 128, 256]


@pytest.mark.parametrize(
    "architecture",
    [
        spec("small-resnet", "block2_1", blocks=1, width=4),
        spec("wide-resnet", "block2_1", blocks=1, widen=2),
        spec("mobilenetv2", "block6", width=0.25, output_stride=8, input_size=32),
    ],
)
def test_extractors_of_any_width_are_projected_to_one(architecture: ArchitectureSpec) -> None:
    plain = build_category_module(architecture).eval()
    common = projected(plain, architecture, 12).eval()
    assert last_layer(common) == "proj"
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = plain(images)
        by_hand = common[-1](features)
        assert torch.equal(common(images), by_hand)
    assert by_hand.shape[1:] == (12, *features.shape[2:])
    # The maths goes through it, too.
    assert output_shape(common, (3, 32, 32)) == by_hand.shape[1:]


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        (spec("small-resnet", "block1_3"), (16, 32, 32)),
        (spec("small-resnet", "block2_3", shortcut="B"), (32, 16, 16)),
        (spec("small-resnet", "block3_1", width=8, input_size=64), (32, 16, 16)),
        (spec("wide-resnet", "block2_4"), (128, 16, 16)),
        (spec("wide-resnet", "block1_1", widen=2, blocks=1), (32, 32, 32)),
        (spec("resnet18", "block2_2"), (128, 28, 28)),
        (spec("resnet18", "block4_2", input_size=32), (512, 1, 1)),
        (spec("resnet34", "block3_6"), (256, 14, 14)),
        (spec("resnet50", "block3_6", input_size=64), (1024, 4, 4)),
        (spec("efficientnet-lite0", "block6", input_size=128), (80, 8, 8)),
        (spec("efficientnet-lite0", "block12", input_size=128), (192, 4, 4)),
        (spec("mobilenetv2", "block3"), (24, 56, 56)),
        (spec("mobilenetv2", "block6", output_stride=8, input_size=32), (32, 16, 16)),
        (spec("mobilenetv2", "block17", width=0.5, input_size=32), (160, 1, 1)),
    ],
)
@torch.no_grad()
def test_features_and_outputs(architecture: ArchitectureSpec, shape: tuple[int, ...]) -> None:
    assert feature_shape(architecture) == shape
    category_module = build_category_module(architecture).eval()
    task_module = build_task_module(architecture, TASK).eval()
    features = category_module(torch.zeros(1, *input_shape(architecture)))
    assert features.shape[1:] == shape
    assert task_module(features).shape == (1, 1)
    # The maths goes through all of it, by the layers' own names.
    assert output_shape(category_module, input_shape(architecture)) == shape
    assert output_shape(task_module, shape) == (1,)


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("small-resnet", {"blocks": 9}, 27),
        ("wide-resnet", {"blocks": 9, "widen": 2}, 27),
        ("resnet18", {}, 8),
        ("resnet34", {}, 16),
        ("resnet50", {}, 16),
        ("efficientnet-lite0", {}, 16),
        ("mobilenetv2", {}, 17),
    ],
)
def test_every_split_point_gives_the_whole_net(
    name: str, settings: dict[str, Any], count: int
) -> None:
    assert len(ARCHITECTURES[name].split_points) == count
    with torch.device("meta"):
        names = set()
        for split in ARCHITECTURES[name].split_points:
            architecture = spec(name, split, **settings)
            f, g = build_category_module(architecture), build_task_module(architecture, TASK)
            names.add(tuple(child for part in (f, g) for child, _ in part.named_children()))
            assert [child for child, _ in f.named_children()][-1] == split
    assert len(names) == 1


@pytest.mark.parametrize(
    "architecture",
    [
        spec("small-resnet", "block2_1", width=4, blocks=1, shortcut="B"),
        spec("wide-resnet", "block1_1", widen=2, blocks=1),
        spec("mobilenetv2", "block2", width=0.25, input_size=32, output_stride=8),
    ],
)
def test_weights_with_running_statistics_travel(
    architecture: ArchitectureSpec, tmp_path: Path
) -> None:
    trained = build_task_module(architecture, TASK).train()
    channels, height, width = feature_shape(architecture)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, channels, height, width, generator=generator)
    with torch.no_grad():
        trained(x)
    entry = safetensors_io.write(tmp_path / "module.safetensors", trained.state_dict())
    with torch.device("meta"):
        expected = build_task_module(architecture, TASK)
    counts = [name for name in layout(expected) if name.endswith("num_batches_tracked")]
    assert counts
    assert {layout(expected)[name] for name in counts} == {("I64", ())}
    require_fit(expected, entry, what="task module")
    received = build_task_module(architecture, TASK)
    safetensors_io.load_module(received, tmp_path / "module.safetensors", entry)
    with torch.no_grad():
        assert torch.equal(received.eval()(x), trained.eval()(x))
    assert all(int(received.state_dict()[name]) == 1 for name in counts)


def test_initial_weights_follow_from_the_seed_alone() -> None:
    architecture = spec("small-resnet", "block1_1", width=4, blocks=1)
    before = torch.get_rng_state()
    first, second, third = (initial_modules(architecture, [TASK], seed=s) for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(
        first[1]["classification"].parameters(),
        second[1]["classification"].parameters(),
        strict=True,
    ):
        assert torch.equal(one, other)
    convs = [weight(m, "block1_1.conv1").detach() for m, _ in (first, third)]
    assert not torch.equal(*convs)
    # He's values reach inside the blocks: each ReLU sees unit variance.
    assert float(convs[0].std()) == pytest.approx((2 / (4 * 9)) ** 0.5, rel=0.2)


def test_relus_to_mask_start_at_the_lowest_block_of_the_task_module() -> None:
    architecture = spec("small-resnet", "block3_1", blocks=2, width=4)
    maps = relu_maps(build_task_module(architecture, TASK), input_shape_CHW=(16, 8, 8))
    assert list(maps) == ["block3_2.relu1", "block3_2.relu2"]


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (spec("small-resnet", "block2_4"), "no split point 'block2_4' with these settings"),
        (spec("small-resnet", "block1_1", shortcut="C"), "shortcut.*'A' or 'B'"),
        (spec("small-resnet", "block1_1", blocks=10), "blocks.*9"),
        (spec("wide-resnet", "block1_1", widen=1), "widen.*2"),
        (spec("mobilenetv2", "block1", output_stride=16), "output_stride"),
        (spec("mobilenetv2", "block1", width=9.0), "width.*2"),
        (spec("resnet18", "block1_1", input_size=100), "multiple of 32"),
    ],
)
def test_what_is_not_known_is_refused(architecture: ArchitectureSpec, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        build_category_module(architecture)
