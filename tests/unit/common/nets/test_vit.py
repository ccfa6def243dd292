"""DeiT-tiny without its class token, held against timm's vision transformer without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rootstock.common.distillation.pseudo_gradients.adjoint import output_shape
from rootstock.common.errors import SchemaError, TransplantError
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    feature_shape,
    initial_modules,
)
from rootstock.common.nets.published import take_published
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec

TASK = TaskSpec(name="classification")
SEGMENTATION = TaskSpec(name="segmentation", kind="binary-segmentation")


def spec(size: int = 224, name: str = "deit-tiny") -> ArchitectureSpec:
    return ArchitectureSpec(name=name, split="block6", settings={"input_size": size})


def published(**settings: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: nn.Module = timm.create_model(
            "deit_tiny_patch16_224", pretrained=False, num_classes=1, **settings
        )
        for parameter in net.parameters():  # no zeros, which would hide a mistake
            nn.init.normal_(parameter, std=0.1)
    return net.eval()


def images(size: int = 224) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [224, 96])
def test_it_is_the_published_net_with_an_average_for_the_class_token(size: int) -> None:
    net = published(class_token=False, global_pool="avg", fc_norm=False, dynamic_img_size=True)
    f, tasks = initial_modules(spec(size), [TASK], seed=0)
    assert take_published(spec(size), f, tasks, net.state_dict()) == ((), ())
    with torch.no_grad():
        y = tasks["classification"].eval()(f.eval()(images(size)))
        torch.testing.assert_close(y, net(images(size)), rtol=1e-4, atol=1e-4)
    assert feature_shape(spec(size)) == (192, size // 16, size // 16)


def test_published_weights_of_a_net_with_a_class_token_fit_but_for_it() -> None:
    net = published()
    f, tasks = initial_modules(spec(), [TASK], seed=0)
    taken = take_published(spec(), f, tasks, net.state_dict())
    assert taken == (("cls_token",), ())
    positions_1TC = net.state_dict()["pos_embed"]
    ours_1CHW = f.state_dict()["patches.position"]
    torch.testing.assert_close(ours_1CHW[0, :, 2, 3], positions_1TC[0, 1 + 2 * 14 + 3])


def test_positions_of_another_size_are_refused_by_name() -> None:
    net = published(img_size=384)
    f, tasks = initial_modules(spec(), [TASK], seed=0)
    with pytest.raises(SchemaError, match=r"'pos_embed' has shape \(1, 577, 192\)"):
        take_published(spec(), f, tasks, net.state_dict())


def test_published_weights_go_where_it_segments_too() -> None:
    f, tasks = initial_modules(spec(), [TASK, SEGMENTATION], seed=0)
    taken = take_published(spec(), f, tasks, published().state_dict())
    assert {name.partition(".")[0] for name in taken.drawn} == {
        "segmentation/score_fr",
        "segmentation/upscore16",
    }


@pytest.mark.parametrize(("name", "count"), [("deit-tiny", 5_717_416), ("deit-small", 22_050_664)])
def test_it_has_the_published_number_of_parameters(name: str, count: int) -> None:
    """But for the class token, its position and the 999 further classes."""
    f = build_category_module(spec(name=name))
    g = build_task_module(spec(name=name), TASK)
    width, _, _ = feature_shape(spec(name=name))
    own = sum(p.numel() for p in (*f.parameters(), *g.parameters()))
    assert own == count - 2 * width - 999 * (width + 1)


def test_it_segments() -> None:
    g = build_task_module(spec(64), SEGMENTATION).eval()
    with torch.no_grad():
        assert g(torch.zeros(2, 192, 4, 4)).shape == (2, 1, 64, 64)


def test_attention_has_no_rule_and_says_so() -> None:
    """What it mixes is its image's alone."""
    with pytest.raises(TransplantError, match="'block7' is a TransformerBlock, which has no adj"):
        output_shape(build_task_module(spec(64), TASK), (192, 4, 4))
