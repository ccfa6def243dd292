import pytest
import torch
import torchvision
from torch import nn

from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import (
    ARCHITECTURES,
    build_category_module,
    build_task_module,
    feature_shape,
    initial_modules,
    input_shape,
    takes_signed,
)
from rootstock.common.nets.branches import DEEP
from rootstock.common.nets.fcn import SCORES
from rootstock.common.nets.spec import ArchitectureSpec, Setting, TaskSpec
from tests.support.layers import weight

TASK = TaskSpec(name="classification")
SEGMENTATION = TaskSpec(name="segmentation", kind="binary-segmentation")


def small_vgg(split: str = "pool1", **settings: int) -> ArchitectureSpec:
    return ArchitectureSpec(name="small-vgg", split=split, settings={"width": 4, **settings})


def names(*modules: nn.Module) -> list[str]:
    return [name for module in modules for name, _ in module.named_children()]


def test_architectures_are_known_by_name() -> None:
    resnets = ("small-resnet", "wide-resnet", "resnet18", "resnet34", "resnet50")
    transformers = ("deit-tiny", "deit-small")
    others = ("mobilenetv2", "efficientnet-lite0", *transformers, "tailored-resnet")
    assert tuple(ARCHITECTURES) == ("small-vgg", "vgg16", *resnets, *others)
    assert ARCHITECTURES["vgg16"].split_points == ("pool1", "pool2", "pool3", "pool4", "pool5")


@pytest.mark.parametrize("split", ["pool1", "pool2", "pool3"])
def test_category_and_task_module_together_are_the_whole_net(split: str) -> None:
    category_module = build_category_module(small_vgg(split))
    task_module = build_task_module(small_vgg(split), TASK)
    assert names(category_module)[-1] == split
    whole = [
        *("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"),
        *("conv2_1", "relu2_1", "conv2_2", "relu2_2", "pool2"),
        *("conv3_1", "relu3_1", "conv3_2", "relu3_2", "pool3"),
        *("flatten", "fc6", "relu6", "drop6", "fc7"),
    ]
    assert names(category_module, task_module) == whole
    images = torch.zeros(2, *input_shape(small_vgg(split)))
    features = category_module(images)
    assert features.shape[1:] == feature_shape(small_vgg(split))
    assert task_module(features).shape == (2, 1)


def test_a_small_vgg_can_normalise_after_each_convolution() -> None:
    module = build_category_module(small_vgg("pool1", batch_norm=True))
    assert names(module) == [
        *("conv1_1", "bn1_1", "relu1_1", "conv1_2", "bn1_2", "relu1_2", "pool1")
    ]
    assert isinstance(module.bn1_2, nn.BatchNorm2d)
    assert feature_shape(small_vgg("pool2", batch_norm=True)) == feature_shape(small_vgg("pool2"))


@pytest.mark.parametrize(
    ("settings", "split", "shape"),
    [
        ({"input_size": 96, "width": 16}, "pool2", (32, 24, 24)),
        ({"input_size": 64, "blocks": 4}, "pool4", (16, 4, 4)),
        ({"in_channels": 1}, "pool3", (16, 4, 4)),
    ],
)
def test_settings_shape_the_features(
    settings: dict[str, int], split: str, shape: tuple[int, int, int]
) -> None:
    spec = small_vgg(split, **settings)
    assert feature_shape(spec) == shape
    images = torch.zeros(1, *input_shape(spec))
    features = build_category_module(spec)(images)
    assert features.shape[1:] == shape
    assert build_task_module(spec, TASK)(features).shape == (1, 1)


def test_hidden_sets_the_width_of_fc6() -> None:
    task_module = build_task_module(small_vgg(hidden=5), TASK)
    assert task_module.get_submodule("fc6").out_features == 5


@pytest.mark.parametrize(
    ("blocks", "split", "own", "nested"),
    [
        (3, "pool1", ["fuse1", "upscore2"], "fuse1.deep.fuse2.deep.score_fr"),
        (3, "pool3", ["fc6", "relu6", "drop6", "score_fr", "upscore8"], "score_fr"),
        (4, "pool2", ["fuse2", "upscore4"], "fuse2.deep.fuse3.deep.score_fr"),
        (4, "pool3", ["fuse3", "upscore8"], "fuse3.deep.score_fr"),
    ],
)
def test_one_category_module_serves_classification_and_segmentation(
    blocks: int, split: str, own: list[str], nested: str
) -> None:
    spec = small_vgg(split, blocks=blocks, input_size=64)
    task_module = build_task_module(spec, SEGMENTATION)
    assert names(task_module) == own
    assert isinstance(task_module.get_submodule(nested), nn.Conv2d)
    features = build_category_module(spec)(torch.zeros(2, *input_shape(spec)))
    assert task_module(features).shape == (2, 1, 64, 64)
    assert build_task_module(spec, TASK)(features).shape == (2, 1)


FCN8S = {
    "conv2_1.weight": (128, 64, 3, 3),
    "conv2_2.weight": (128, 128, 3, 3),
    "conv3_1.weight": (256, 128, 3, 3),
    "conv3_2.weight": (256, 256, 3, 3),
    "conv3_3.weight": (256, 256, 3, 3),
    "fuse3.deep.conv4_1.weight": (512, 256, 3, 3),
    "fuse3.deep.conv4_2.weight": (512, 512, 3, 3),
    "fuse3.deep.conv4_3.weight": (512, 512, 3, 3),
    "fuse3.deep.fuse4.deep.conv5_1.weight": (512, 512, 3, 3),
    "fuse3.deep.fuse4.deep.conv5_2.weight": (512, 512, 3, 3),
    "fuse3.deep.fuse4.deep.conv5_3.weight": (512, 512, 3, 3),
    "fuse3.deep.fuse4.deep.fc6.weight": (4096, 512, 7, 7),
    "fuse3.deep.fuse4.deep.fc7.weight": (4096, 4096, 1, 1),
    "fuse3.deep.fuse4.deep.score_fr.weight": (1, 4096, 1, 1),
    "fuse3.deep.fuse4.deep.upscore2.weight": (1, 1, 4, 4),
    "fuse3.deep.fuse4.skip.weight": (1, 512, 1, 1),
    "fuse3.deep.upscore4.weight": (1, 1, 4, 4),
    "fuse3.skip.weight": (1, 256, 1, 1),
    "upscore8.weight": (1, 1, 16, 16),
}
"""The published net above pool1, for one class (Long et al., 2015)."""


@pytest.mark.parametrize("split", ARCHITECTURES["vgg16"].split_points)
def test_vgg16_segments_as_fcn8s(split: str) -> None:
    """Widths and places of the published net, for whatever multiple of 32 pixels."""
    spec = ArchitectureSpec(name="vgg16", split=split, settings={"input_size": 96})
    with torch.device("meta"):
        task_module = build_task_module(spec, SEGMENTATION)
        features = build_category_module(spec)(torch.zeros(1, 3, 96, 96))
        assert task_module(features).shape == (1, 1, 96, 96)
    if split == "pool1":
        shapes = {name: tuple(t.shape) for name, t in task_module.state_dict().items()}
        assert {name: shape for name, shape in shapes.items() if ".weight" in name} == FCN8S


@pytest.mark.parametrize(
    ("name", "split", "settings", "own"),
    [
        ("efficientnet-lite0", "block9", {"input_size": 64}, "block10 block11 fuse16 upscore16"),
        ("efficientnet-lite0", "block13", {"input_size": 64}, "block14 block15 block16 head"),
        ("mobilenetv2", "block2", {"input_size": 32, "output_stride": 8}, "block3 fuse1"),
        ("small-resnet", "block1_1", {"blocks": 2}, "block1_2 fuse1"),
        ("resnet50", "block2_3", {"input_size": 64}, "block2_4 fuse8 upscore8"),
    ],
)
def test_a_net_that_pools_at_its_end_segments(
    name: str, split: str, settings: dict[str, Setting], own: str
) -> None:
    """Scores of every size of map are fused; the layers are those of the classification."""
    spec = ArchitectureSpec(name=name, split=split, settings=settings)
    task_module = build_task_module(spec, SEGMENTATION)
    assert names(task_module)[: len(own.split())] == own.split()
    features = build_category_module(spec).eval()(torch.zeros(2, *input_shape(spec)))
    y = task_module.eval()(features)
    assert y.shape == (2, 1, *input_shape(spec)[1:])
    chain = {key for key in build_task_module(spec, TASK).state_dict() if not key.startswith("fc")}
    assert chain == {
        key.rpartition(f"{DEEP}.")[2]
        for key in task_module.state_dict()
        if not any(own in key for own in (*SCORES, "upscore"))
    }


def test_its_names_do_not_change_with_the_images_size() -> None:
    spec = ArchitectureSpec(name="efficientnet-lite0", split="block5")
    with torch.device("meta"):
        states = [
            build_task_module(
                spec.model_copy(update={"settings": {"input_size": size}}), SEGMENTATION
            ).state_dict()
            for size in (64, 128, 224)
        ]
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize(
    ("name", "split", "settings"),
    [
        ("small-vgg", "pool1", {}),
        ("vgg16", "pool1", {"input_size": 32}),
        ("small-resnet", "block1_1", {}),
        ("wide-resnet", "block2_1", {"widen": 2}),
        ("resnet18", "block2_1", {"input_size": 64}),
        ("resnet34", "block2_1", {"input_size": 64}),
        ("resnet50", "block2_1", {"input_size": 64}),
        ("mobilenetv2", "block4", {"input_size": 32, "output_stride": 8}),
        ("efficientnet-lite0", "block11", {"input_size": 64}),
        ("deit-tiny", "block6", {"input_size": 32}),
    ],
)
def test_it_says_whether_its_features_may_be_negative(
    name: str, split: str, settings: dict[str, Setting]
) -> None:
    spec = ArchitectureSpec(name=name, split=split, settings=settings)
    f, _ = initial_modules(spec, [TASK], seed=0)
    images_NCHW = torch.randn(4, *input_shape(spec), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features_NCHW = f.train()(images_NCHW)
    assert takes_signed(spec) == (float(features_NCHW.min()) < 0)


def test_an_architecture_without_a_segmentation_says_which_have_one() -> None:
    settings: dict[str, Setting] = {"backbone": "small-resnet", "blocks": 1, "paths": "1:0"}
    spec = ArchitectureSpec(name="tailored-resnet", split="tailored", settings=settings)
    message = (
        "'tailored-resnet' has no task module of kind 'binary-segmentation', which task "
        "'segmentation' asks for; architectures that have one: small-vgg, vgg16, small-resnet"
    )
    with pytest.raises(SchemaError, match=message):
        build_task_module(spec, SEGMENTATION)
    with pytest.raises(SchemaError, match=message):
        initial_modules(spec, [TASK, SEGMENTATION], seed=0)
    assert build_task_module(spec, TASK)


def test_vgg16_is_torchvisions_layer_by_layer() -> None:
    spec = ArchitectureSpec(name="vgg16", split="pool1")
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(init_weights=False, num_classes=1)
        ours = [*build_category_module(spec), *build_task_module(spec, TASK)]
    flat = [*theirs.features, theirs.avgpool, nn.Flatten(), *theirs.classifier]

    def describe(layer: nn.Module) -> str:
        return repr(layer).replace("inplace=True", "")

    assert [describe(layer) for layer in ours] == [describe(layer) for layer in flat]
    assert feature_shape(spec) == (64, 112, 112)


def test_initial_weights_follow_from_the_seed_alone() -> None:
    tasks = [TASK, TaskSpec(name="other")]
    before = torch.get_rng_state()
    first_f, first_g = initial_modules(small_vgg(), tasks, seed=3)
    torch.rand(7)
    second_f, second_g = initial_modules(small_vgg(), tasks, seed=3)
    third_f, _ = initial_modules(small_vgg(), tasks, seed=4)
    assert list(first_g) == ["classification", "other"]
    for first, second in zip(
        [first_f, *first_g.values()], [second_f, *second_g.values()], strict=True
    ):
        for one, other in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(weight(first_f, "conv1_1"), weight(third_f, "conv1_1"))
    torch.set_rng_state(before)


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    initial_modules(small_vgg(), [TASK], seed=0)
    build_category_module(small_vgg())
    build_task_module(small_vgg(), TASK)
    assert torch.equal(before, torch.get_rng_state())


@torch.no_grad()
def test_initial_weights_keep_the_signal_alive() -> None:
    spec = small_vgg(width=16)
    category_module, task_modules = initial_modules(spec, [TASK], seed=0)
    images = torch.randn(16, *input_shape(spec), generator=torch.Generator().manual_seed(0))
    features = task_modules["classification"][:-2](category_module(images))
    assert 0.2 < float(features.std()) < 5
    logits = task_modules["classification"].eval()(category_module(images))
    assert float(logits.abs().max()) < 1


@torch.no_grad()
def test_a_segmentation_starts_undecided_and_upsamples_bilinearly() -> None:
    spec = small_vgg(width=16, input_size=64, blocks=4)
    category_module, task_modules = initial_modules(spec, [SEGMENTATION], seed=0)
    module = task_modules["segmentation"].eval()
    images = torch.randn(8, *input_shape(spec), generator=torch.Generator().manual_seed(0))
    features = category_module(images)
    logits = module(features)
    assert float(logits.std()) > 1e-3
    assert float(logits.abs().max()) < 1.5
    deep = module.get_submodule("fuse2.deep")
    assert isinstance(deep, nn.Sequential)
    deepest = nn.Sequential(*module[:5], *deep[:5])
    assert 0.2 < float(deepest(features).std()) < 5
    for name, factor in (("upscore4", 4), ("fuse2.deep.upscore4", 2)):
        flat = module.get_submodule(name)(torch.ones(1, 1, 6, 6))
        assert flat.shape == (1, 1, 6 * factor, 6 * factor)
        torch.testing.assert_close(
            flat[:, :, factor:-factor, factor:-factor], torch.ones(1, 1, 4 * factor, 4 * factor)
        )


def test_a_segmentation_learns_where_things_are_from_its_initial_weights() -> None:
    """Bright discs on noise: the scores that start near zero come alive within some steps."""
    spec = small_vgg(width=4)
    f, task_modules = initial_modules(spec, [SEGMENTATION], seed=0)
    net = nn.Sequential(f, task_modules["segmentation"])
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(16, 2, generator=generator) * 16 + 8
    grid = torch.stack(torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij"), -1)
    inside = (grid - centres[:, None, None]).norm(dim=-1) < 6
    images = torch.randn(16, 3, 32, 32, generator=generator) + 2 * inside[:, None]
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(40):
            loss = nn.functional.binary_cross_entropy_with_logits(net(images)[:, 0], inside.float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        right = ((net.eval()(images)[:, 0] > 0) == inside).float().mean()
    assert float(right) > 0.93 > float(1 - inside.float().mean()) + 0.02


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ArchitectureSpec(name="resnet-9000", split="pool1"), "known architectures: small-vgg"),
        (small_vgg("pool9"), "known split points: pool1, pool2, pool3"),
        (small_vgg("pool4", blocks=3), "no split point 'pool4' with these settings"),
        (small_vgg(input_size=40), "input_size.*multiple of 16"),
        (small_vgg(width=4096), "width.*128"),
        (small_vgg(widht=8), "widht.*known settings: input_size, in_channels, width"),
        (
            ArchitectureSpec(name="small-vgg", split="pool1", settings={"width": "16"}),
            "width.*integer",
        ),
        (
            ArchitectureSpec(name="small-vgg", split="pool1", settings={"width": True}),
            "width.*integer",
        ),
    ],
)
def test_what_is_not_known_is_refused_with_what_is(spec: ArchitectureSpec, message: str) -> None:
    for use in (input_shape, feature_shape, build_category_module):
        with pytest.raises(SchemaError, match=message):
            use(spec)
