"""Nets of torchvision and timm, as the libraries build them: a chain has to be the net itself."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it
from torchvision import models

from rootstock.common.errors import SchemaError
from rootstock.common.nets import library
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    build_task_module,
    feature_shape,
    gives_signed,
    initial_modules,
    input_shape,
    split_points,
    takes_signed,
)
from rootstock.common.nets.chains import Link, taken_apart
from rootstock.common.nets.published import take_published
from rootstock.common.nets.spec import ArchitectureSpec, Setting, TaskSpec

TASK = TaskSpec(name="classification")
SEGMENTATION = TaskSpec(name="segmentation", kind="binary-segmentation")
SMALL: dict[str, Setting] = {"input_size": 64}


def spec(name: str, split: str, **settings: Setting) -> ArchitectureSpec:
    return ArchitectureSpec(name=name, split=split, settings={**SMALL, **settings})


def images(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("model", "split", "shape"),
    [
        ("mobilenet_v3_small", "features_7", (48, 4, 4)),
        ("mobilenet_v3_large", "features_9", (80, 4, 4)),
        ("convnext_tiny", "features_5_2", (384, 4, 4)),
        ("densenet121", "features_transition2_pool", (256, 4, 4)),
        ("efficientnet_b0", "features_5_0", (112, 4, 4)),
        ("googlenet", "inception4b", (512, 4, 4)),
        ("regnet_y_400mf", "trunk_output_block3_block3-1", (208, 4, 4)),
        ("resnext50_32x4d", "layer3_1", (1024, 4, 4)),
        ("shufflenet_v2_x1_0", "stage3_3", (232, 4, 4)),
    ],
)
def test_a_net_of_torchvision_is_its_f_and_g(
    model: str, split: str, shape: tuple[int, ...]
) -> None:
    """Published weights in ours, both parts one after the other, are the published net."""
    name = spec(f"torchvision:{model}", split)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        slow = {"init_weights": False} if model == "googlenet" else {}
        published = models.get_model(model, weights=None, num_classes=1, **slow).eval()
    f, tasks = initial_modules(name, [TASK], seed=0)
    taken = take_published(name, f, tasks, published.state_dict())
    assert not [left for left in taken.left_out if not left.startswith("aux")]
    g = tasks["classification"].eval()
    with torch.no_grad():
        x_NCHW = f.eval()(images())
        torch.testing.assert_close(g(x_NCHW), published(images()))
    assert feature_shape(name) == x_NCHW.shape[1:] == shape
    with torch.no_grad():
        y = build_task_module(name, SEGMENTATION).eval()(x_NCHW)
    assert y.shape == (2, 1, 64, 64)


@pytest.mark.parametrize(
    ("model", "split"),
    [("resnet18", "layer3_0"), ("mobilenetv4_conv_small", "blocks_2_0"), ("repvgg_a0", "stages_2")],
)
def test_a_net_of_timm_is_its_f_and_g(model: str, split: str) -> None:
    timm = pytest.importorskip("timm")
    published = timm.create_model(model, pretrained=False, num_classes=1).eval()
    points = split_points(f"timm:{model}", SMALL)
    name = spec(f"timm:{model}", next(x.name for x in points if x.name.startswith(split)))
    f, tasks = initial_modules(name, [TASK], seed=0)
    assert take_published(name, f, tasks, published.state_dict()).left_out == ()
    with torch.no_grad():
        y = tasks["classification"].eval()(f.eval()(images()))
        torch.testing.assert_close(y, published(images()))


@pytest.mark.parametrize(
    ("model", "split"), [("convnext_tiny", "features_1_0"), ("swin_t", "permute")]
)
def test_initial_values_are_the_seed_s_whatever_was_drawn_before(model: str, split: str) -> None:
    """Also of what is no convolution: norms, scales, and tables of positions."""
    name = spec(f"torchvision:{model}", split)
    states = []
    for before in (1, 2):
        torch.manual_seed(before)
        f, tasks = initial_modules(name, [TASK], seed=5)
        states.append(f.state_dict() | tasks["classification"].state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("name", "split", "signed"),
    [
        ("torchvision:resnet18", "layer2_0", False),
        ("torchvision:vgg16_bn", "features_5", False),
        ("torchvision:mobilenet_v3_small", "features_4", True),
        ("torchvision:convnext_tiny", "features_1_0", True),
        ("torchvision:densenet121", "features_transition1_relu", False),
        ("torchvision:mobilenet_v2", "features_0_2", False),
        ("timm:hgnetv2_b0", "stages_1_blocks_0", True),  # a ReLU, and a shift that begins at 0
    ],
)
def test_it_says_whether_its_features_may_be_negative(name: str, split: str, signed: bool) -> None:
    assert gives_signed(spec(name, split)) == takes_signed(spec(name, split)) == signed


def test_g_leaves_the_features_as_they_are() -> None:
    """MobileNetV3's own activation writes into what it gets, which here is kept and used again."""
    name = spec("torchvision:mobilenet_v3_small", "features_0_1")
    features_NCHW = build_category_module(name).eval()(images())
    before = features_NCHW.clone()
    with torch.no_grad():
        build_task_module(name, TASK).eval()(features_NCHW)
    torch.testing.assert_close(features_NCHW, before, rtol=0, atol=0)


def test_a_head_has_as_many_outputs_as_are_asked_for() -> None:
    name = spec("torchvision:mobilenet_v3_small", "features_7")
    head = build_head(name, 7).eval()
    assert head(torch.zeros(1, *feature_shape(name))).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("torchvision:vit_b_16", {"input_size": 224}, r"cannot be split: it is no chain of blocks"),
        ("torchvision:squeezenet1_1", {}, "ends in layer 'flatten', a Flatten"),
        ("torchvision:inception_v3", {"input_size": 32}, r"cannot take images of 32×32 .*set ano"),
        (
            "torchvision:swin_t",
            {},
            "no split point 'x' .*known split points: features_0_0, permute",
        ),
        ("torchvision:regnet_y_128gf", {}, r"644,812,894 parameters, and 150,000,000 is the most"),
        ("torchvision:mobilenet_v9", {}, r"no net of that name; it has mobilenet_v2, mobilenet_v3"),
        (
            "torchvision:resnet18",
            {"in_channels": 1},
            "in_channels: Input should be 3 .*known settings: input_size",
        ),
        ("timm:selecsls42b", {}, "gives a list, not one map"),
        ("torchvision:resnet18", {"width": 2}, "known settings: input_size, in_channels"),
        ("torchvision:resnet18", {}, "no split point 'x' .*known split points: conv1, bn1, relu"),
        ("resnet17", {}, "unknown architecture 'resnet17'.*'torchvision:NAME' and 'timm:NAME'"),
    ],
)
def test_what_cannot_be_had_is_refused(
    name: str, settings: dict[str, Setting], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        build_category_module(spec(name, "x", **settings))


def test_other_libraries_are_no_names() -> None:
    with pytest.raises(ValueError, match="names have 1 to 63"):
        spec("os:system", "x")


def test_a_net_that_does_not_pool_does_not_segment() -> None:
    with pytest.raises(SchemaError, match="'torchvision:vgg11' does not pool its maps"):
        build_task_module(spec("torchvision:vgg11", "features_2"), SEGMENTATION)


def test_maps_that_do_not_divide_the_image_do_not_segment() -> None:
    name = spec("torchvision:inception_v3", "maxpool1", input_size=96)
    with pytest.raises(SchemaError, match=r"maps of .* cannot be brought to"):
        build_task_module(name, SEGMENTATION)


class Wired(nn.Module):
    """A small net of one wiring, which a list of layers can say or cannot."""

    def __init__(self, wiring: str) -> None:
        super().__init__()
        self.conv, self.other, self.wiring = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), wiring
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        match self.wiring:
            case "shared":
                x = self.conv(self.conv(x))
            case "values":
                x = self.conv(x) if x.sum() > 0 else x
            case "function":
                x = F.pad(self.conv(x), (1, 1))
            case "sum":
                x = self.conv(x) + self.other(x)
            case "training":
                x = self.other(self.conv(x)) if self.training else self.conv(x)
            case "around":
                x = self.other(F.relu(self.conv(x))) if x.ndim == 4 else x
            case _:
                x = self.act(self.other(self.act(self.conv(x))))
        return x


def meta(model: nn.Module) -> nn.Module:
    return model.to("meta")


def links(model: nn.Module, size: int = 64) -> list[Link]:
    return taken_apart(meta(model), torch.empty(2, 3, size, size, device="meta"))


@pytest.mark.parametrize(
    ("wiring", "message"),
    [
        ("shared", "its layer 'conv' runs twice"),
        ("function", "a Wired does '_?pad', which no layer here stands for"),
        ("sum", "a Wired branches, and joins again at 'other'"),
        ("training", "it runs other layers in training than in evaluation"),
    ],
)
def test_what_is_no_chain_says_why(wiring: str, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        links(Wired(wiring))


def test_what_looks_at_values_has_none_to_look_at() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        links(Wired("values"))


def test_what_reads_the_shape_of_its_input_is_still_a_chain() -> None:
    assert [link.name for link in links(Wired("around"))] == ["conv", "relu", "other"]


def test_a_layer_that_runs_twice_is_two_layers() -> None:
    """A chain has each layer once, by its name, and so have lists of children."""
    whole = Wired("twice")
    found = links(Wired("twice"))
    assert [link.name for link in found] == ["conv", "act", "other", "act_2"]
    layers = [link.of(whole) for link in found]
    assert layers[1] is not layers[3]
    image = images()
    torch.testing.assert_close(nn.Sequential(*layers)(image), whole(image))


def test_names_are_not_given_twice() -> None:
    net = nn.Sequential(OrderedDict([("a_2", nn.ReLU()), ("a", nn.ReLU()), ("A", nn.ReLU())]))
    assert [link.name for link in links(net)] == ["a_2", "a", "a_3"]


def test_blocks_of_one_class_stay_alike() -> None:
    """Only some of MobileNetV3's blocks add a shortcut, and none of them is taken apart."""
    names = [link.name for link in links(models.mobilenet_v3_small(weights=None))]
    assert names[:4] == ["features_0_0", "features_0_1", "features_0_2", "features_1"]
    assert names[11:13] == ["features_9", "features_10"]


def test_what_a_function_does_is_a_layer() -> None:
    layers = [(x.name, x.path) for x in links(models.densenet121(weights=None))]
    assert layers[-4:] == [
        ("relu", None),
        ("avgpool", None),
        ("flatten", None),
        ("classifier", "classifier"),
    ]


def test_nets_are_taken_apart_while_others_run() -> None:
    """Peers name nets: nothing outside of the thread may be touched for it."""
    running = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    stop = threading.Event()

    def run() -> int:
        count = 0
        while not stop.is_set():
            running(images(16))
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        passes = pool.submit(run)
        made = [pool.submit(links, models.resnet18(weights=None)) for _ in range(6)]
        names = {tuple(link.name for link in each.result()) for each in made}
        stop.set()
        assert passes.result() > 0
    assert len(names) == 1


def test_a_refusal_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that names a net again and again has it built once."""
    built: list[object] = []

    def build(*given: object) -> nn.Module:
        built.append(given)
        return nn.Sequential(nn.Conv2d(3, 3, 1))

    monkeypatch.setattr(library, "_built", build)
    for _ in range(2):
        with pytest.raises(SchemaError, match="ends in layer"):
            build_category_module(spec("torchvision:alexnet", "x", input_size=77))
    assert len(built) == 1


def test_an_extractor_of_another_size_is_refused_before_it_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "_built", lambda *_: pytest.fail("built"))
    extractor = spec("torchvision:convnext_small", "features_1_0", input_size=512)
    own = ArchitectureSpec(name="small-vgg", split="pool2", extractor=extractor)
    with pytest.raises(SchemaError, match=r"takes images of \(3, 512, 512\)"):
        input_shape(own)
