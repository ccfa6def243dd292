from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.nets.architectures import build_category_module, build_head
from rootstock.common.nets.declaration import renamed
from rootstock.common.nets.efficientnet import EfficientNetLite0
from rootstock.common.nets.spec import ArchitectureSpec
from tests.support.layers import layer, weight

SPEC = ArchitectureSpec(name="efficientnet-lite0", split="block11", settings={"input_size": 64})


def test_it_has_the_published_number_of_parameters() -> None:
    whole = nn.Sequential(build_category_module(SPEC), build_head(SPEC, 1000))
    assert sum(p.numel() for p in whole.parameters()) == 4_652_008


def test_strided_convolutions_pad_below_and_to_the_right_as_tensorflow_does() -> None:
    f = build_category_module(SPEC).eval()
    images_NCHW = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    stem = f.get_submodule("stem")
    by_hand = F.conv2d(F.pad(images_NCHW, (0, 1, 0, 1)), weight(stem, "conv"), stride=2)
    expected = stem.get_submodule("relu")(stem.get_submodule("bn")(by_hand))
    with torch.no_grad():
        torch.testing.assert_close(stem(images_NCHW), expected)
    assert layer(f, "block4.conv.depthwise_pad", nn.ZeroPad2d).padding == (1, 2, 1, 2)


def test_published_names_are_ours() -> None:
    own = EfficientNetLite0().own_name
    assert own("_blocks.0._bn1.weight") == "block1.conv.depthwise_bn.weight"
    assert own("_blocks.11._expand_conv.weight") == "block12.conv.expand.weight"
    assert own("_bn1.running_var") == "head.bn.running_var"
    assert own("something.else") == "something.else"
    assert renamed("a7.x", [(r"a(\d+)\.", "b{1}_{1+1}.")]) == "b7_8.x"
