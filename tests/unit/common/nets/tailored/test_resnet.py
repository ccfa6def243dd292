"""Architecture "tailored-resnet": the same module as NetTailor's export, from a peer's text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    build_task_module,
    feature_shape,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.nets.tailored.paths import all_paths, from_text, text_of
from rootstock.common.nets.tailored.resnet import tailored_spec
from rootstock.common.nettailor.augmented import AugmentedNet
from rootstock.common.nettailor.tailored import TailoredNet
from tests.support.nettailor_nets import stir

TASK = TaskSpec(name="classification")


def spec(paths: str, backbone: str = "small-resnet", **settings: Any) -> ArchitectureSpec:
    return ArchitectureSpec(
        name="tailored-resnet",
        split="tailored",
        settings={"backbone": backbone, "paths": paths, **settings},
    )


def plan(name: str, split: str, **settings: Any) -> ArchitectureSpec:
    return ArchitectureSpec(name=name, split=split, settings=settings)


def schema(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("planned", "kept"),
    [
        (plan("small-resnet", "block2_1", blocks=2, width=4), "1:1 2:0 3:02"),
        (plan("small-resnet", "block3_1", blocks=1, width=4, shortcut="B"), "1:01 2:2 3:023"),
        (plan("wide-resnet", "block2_1", blocks=1, widen=2), "1:1 2:0"),
        (plan("resnet18", "block2_1", input_size=64), "1:0 2:1 3:02"),
    ],
)
@torch.no_grad()
def test_it_is_what_an_augmented_net_exports(planned: ArchitectureSpec, kept: str) -> None:
    f = build_category_module(planned)
    stir(f.eval())
    net = AugmentedNet(f, build_head(planned, 3), input_shape(planned), seed=0)
    net = net.restricted(from_text(kept, len(net.names)))
    stir(net, seed=2)
    for parameter in net.attention:
        parameter.copy_(torch.randn(len(parameter), generator=torch.Generator().manual_seed(3)))
    exported = TailoredNet(net.eval())

    described = tailored_spec(planned, net.ordered())
    built = build_category_module(described).eval()
    assert schema(built.state_dict()) == schema(exported.extractor.state_dict())
    built.load_state_dict(exported.extractor.state_dict())
    images = torch.randn(2, *input_shape(planned), generator=torch.Generator().manual_seed(4))
    features = net.activations(images).nodes[len(net.names)]
    assert float(features.std()) > 1e-3
    torch.testing.assert_close(
        built(images), features, atol=1e-5 * float(features.max()), rtol=1e-4
    )

    # Below the plan's task module as any other extractor; as a net of its own it has the same one.
    whole = planned.model_copy(update={"extractor": described})
    assert feature_shape(whole) == feature_shape(planned) == feature_shape(described)
    assert input_shape(described) == input_shape(planned)
    above = [build_task_module(each, TASK).state_dict() for each in (described, planned)]
    assert schema(above[0]) == schema(above[1])


def test_what_was_left_out_is_not_there() -> None:
    names = build_category_module(spec("2:2", blocks=1)).state_dict()
    assert {name.rpartition(".")[0] for name in names} == {
        "conv1", "bn1", "tailored.proxies.proxy2_block2_1",
    }  # fmt: skip


@pytest.mark.parametrize("nodes", [1, 2, 5, 27])
def test_a_text_names_paths_and_comes_back(nodes: int) -> None:
    paths = all_paths(nodes)
    text = text_of(reversed(paths))
    assert from_text(text, nodes) == paths
    assert from_text(text, nodes + 1) == paths
    assert len(text) <= 214


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is not NODE:SKIPS, as '3:02'"),
        ("1:0  2:0", "parted by one space"),
        ("1:0\n", "is not NODE:SKIPS"),
        ("0:0", "'0:0' is not NODE:SKIPS"),
        ("01:0", "'01:0' is not NODE:SKIPS"),
        ("1:", "'1:' is not NODE:SKIPS"),
        ("١:0", "is not NODE:SKIPS"),
        ("1:0 4:0", "there is no node 4; the backbone has 3"),
        ("1:2", "no path into node 1 skips 2; 0 (the block) to 1 are there"),
        ("1:0 2:0 3:4", "no path into node 3 skips 4; 0 (the block) to 3 are there"),
        ("2:0 1:0", "write '1:0 2:0'"),
        ("1:10", "write '1:01'"),
        ("1:00", "none comes twice; write '1:0'"),
        ("1:0 1:1", "write '1:01'"),
        ("2:0", "'2:0' does not lie between the stem (node 0) and the last node, 2"),
        ("1:0 2:2", "'1:0' does not lie between"),
        ("1:0 3:3", "'1:0' does not lie between"),
        ("1:0 " * 200, "paths have 800 characters; 512 are the most"),
    ],
)
def test_a_text_that_breaks_a_rule_is_told_the_rule(text: str, said: str) -> None:
    assert feature_shape(spec("1:01 2:012 3:0123", blocks=1))[0] == 64
    with pytest.raises(SchemaError, match="settings of architecture 'tailored-resnet'") as caught:
        feature_shape(spec(text, blocks=1))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (spec("1:0", "small-vgg"), "'small-resnet', 'wide-resnet' or 'resnet18'"),
        (spec("1:0", "tailored-resnet"), "'small-resnet', 'wide-resnet' or 'resnet18'"),
        (spec("1:0", width=4096), "backbone 'small-resnet': width: Input should be less than"),
        (spec("1:0", blocks=True), "backbone 'small-resnet': blocks: Input should be a valid int"),
        (spec("1:0", "resnet18", width=4), "backbone 'resnet18': width: Extra inputs"),
        (spec("1:0", "resnet18", input_size=1024), "backbone 'resnet18': input_size"),
        (spec("1:0", in_channels=99), "backbone 'small-resnet': in_channels"),
        (spec("1:0", depth=4), "depth: Extra inputs"),
        (plan("tailored-resnet", "tailored", backbone="small-resnet"), "paths: Field required"),
        (plan("tailored-resnet", "tailored", paths="1:0"), "backbone: Field required"),
        (
            plan("tailored-resnet", "block1_1", backbone="small-resnet", paths="1:0"),
            "known split points: tailored",
        ),
    ],
)
def test_settings_are_the_backbones(changed: ArchitectureSpec, said: str) -> None:
    with pytest.raises(SchemaError) as caught:
        feature_shape(changed)
    assert said in str(caught.value)


def test_an_extractor_that_ends_elsewhere_does_not_fit_the_plan() -> None:
    planned = plan("small-resnet", "block2_1", blocks=1)
    fits = planned.model_copy(update={"extractor": spec("1:0 2:0", blocks=1)})
    assert feature_shape(fits) == (32, 16, 16)
    for paths in ("1:0", "1:0 2:0 3:0"):
        with pytest.raises(SchemaError, match="choose another split of it"):
            feature_shape(planned.model_copy(update={"extractor": spec(paths, blocks=1)}))
