"""Pseudo-gradients D' (Network Transplanting, Eq. 4b): a module's adjoint, agnostic of images.

D' = f'_conv ∘ f'_dummy ∘ f'_pool^avg ∘ … ∘ f'_conv (G). Because nothing in it depends on feature
maps it is computed directly, layer by layer from the top, without a forward pass and without
autograd; only where an adapter's own weights take part does PyTorch record a graph.

Shapes: N batch of draws, O outputs of the module, S side of an enlarged G, C/H/W of x = f(I).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rootstock.common.distillation.pseudo_gradients import branch_rules, rules
from rootstock.common.distillation.pseudo_gradients.rules import Rule, Shape, Site
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.branches import PaddedShortcut, SkipFusion
from rootstock.common.nets.efficientnet import MobileBlock
from rootstock.common.nets.vit import MapNorm

Masks = Mapping[str, Tensor]
"""1(x_rand > 0) by the path of a ReLU, broadcastable to its gradient map; absent means dummy-1."""

RuleClass = Callable[[Any, Site], Rule]

RULES: dict[type[nn.Module], RuleClass] = {
    Adapter: rules.AdapterRule,
    MapNorm: rules.ChannelNormRule,
    MobileBlock: branch_rules.InvertedResidualRule,
    PaddedShortcut: branch_rules.PaddedShortcutRule,
    SkipFusion: branch_rules.SkipFusionRule,
    nn.AdaptiveAvgPool2d: rules.AdaptiveAvgPool2dRule,
    nn.AvgPool2d: rules.AvgPool2dRule,
    nn.BatchNorm2d: rules.BatchNorm2dRule,
    nn.Conv2d: rules.Conv2dRule,
    nn.ConvTranspose2d: branch_rules.ConvTranspose2dRule,
    nn.Dropout: rules.IdentityRule,
    nn.Dropout2d: rules.IdentityRule,
    nn.Flatten: rules.FlattenRule,
    nn.GELU: rules.ReluRule,
    nn.Hardswish: rules.ReluRule,
    nn.Identity: rules.IdentityRule,
    nn.Linear: rules.LinearRule,
    nn.MaxPool2d: rules.AvgPool2dRule,
    nn.ReLU: rules.ReluRule,
    nn.ReLU6: rules.ReluRule,
    nn.Sequential: rules.SequentialRule,
    nn.SiLU: rules.ReluRule,
    nn.ZeroPad2d: rules.ZeroPad2dRule,
}
"""Rules by layer type: that very type, not its subclasses. What is added here takes part."""

_RULES_BY_NAME: dict[str, RuleClass] = {
    "torchvision.models.convnext.CNBlock": branch_rules.ConvNextBlockRule,
    "torchvision.models.convnext.LayerNorm2d": rules.ChannelNormRule,
    "torchvision.models.efficientnet.FusedMBConv": branch_rules.MobileBlockRule,
    "torchvision.models.efficientnet.MBConv": branch_rules.MobileBlockRule,
    "torchvision.models.mobilenetv2.InvertedResidual": branch_rules.InvertedResidualRule,
    "torchvision.models.mobilenetv3.InvertedResidual": branch_rules.MobileBlockRule,
    "torchvision.models.resnet.BasicBlock": branch_rules.BasicBlockRule,
    "torchvision.models.resnet.Bottleneck": branch_rules.BottleneckRule,
    "torchvision.ops.misc.Conv2dNormActivation": rules.SequentialRule,
    "torchvision.ops.misc.SqueezeExcitation": branch_rules.SqueezeExcitationRule,
    "torchvision.ops.stochastic_depth.StochasticDepth": rules.IdentityRule,
}
"""torchvision's own modules, by name: importing it takes a second that few callers need."""


def pseudo_gradient(
    module: nn.Module, G: Tensor, *, input_shape_CHW: Shape, masks: Masks | None = None
) -> Tensor:
    """Return D', the pseudo-gradient at a module's input (Eq. 4b), (N, C, H', W') in G's dtype.

    The module is g, h, or any whose layers have rules; it is not called, and not changed. G, at its
    output, is (N, O) or (N, O, S, S): S×S at a vector output treats the first Linear after a
    Flatten of C×h×w as an h×w convolution (paper, appendix). At a map it is (N, O, H, W) of the
    map's size. `input_shape_CHW` is for an image of the nominal size: (H', W') = (H, W) at the
    nominal size of G, and each further place of an enlarged G adds the module's total stride. ReLUs
    that have a mask are dummy-2, all others dummy-1.
    """
    masks = {} if masks is None else masks
    used: set[str] = set()

    def mask(gradient: Tensor, path: str) -> Tensor:
        if path not in masks:
            return gradient
        used.add(path)
        # A product would first turn the mask into a map of floats as large as the gradient.
        return torch.where(masks[path].to(torch.bool), gradient, 0.0)

    result = _walk(module, G, input_shape_CHW, mask)
    if unknown := sorted(set(masks) - used):
        raise TransplantError(
            f"masks for {', '.join(unknown)}, where the module has no ReLU; "
            "draw masks from this module's own relu_maps"
        )
    return result


def relu_maps(module: nn.Module, *, input_shape_CHW: Shape, size: int = 1) -> dict[str, Shape]:
    """Return the shape of the gradient map at every ReLU, by path, lowest ReLU first.

    `size` is S, the side of the enlarged G at a vector output; at a map (segmentation) G is of its
    size.
    """
    maps: dict[str, Shape] = {}

    def note(gradient: Tensor, path: str) -> Tensor:
        maps[path] = tuple(gradient.shape[1:])
        return gradient

    outputs, *sides = output_shape(module, input_shape_CHW)
    like = next(module.parameters(), torch.empty(0))
    with torch.no_grad():
        zero = like.new_zeros(1, outputs, *(sides or (size, size)))
        _walk(module, zero, input_shape_CHW, note)
    return dict(reversed(maps.items()))


def output_shape(module: nn.Module, input_shape_CHW: Shape) -> Shape:
    """Return the shape of a module's output, without the batch, by its layers' rules."""
    return _rule(
        module, Site("", input_shape_CHW, lambda gradient, _: gradient, _rule)
    ).output_shape


def _walk(
    module: nn.Module, G: Tensor, shape: Shape, mask: Callable[[Tensor, str], Tensor]
) -> Tensor:
    rule = _rule(module, Site("", shape, mask, _rule))
    outputs = rule.output_shape[0]
    gradient = G[:, :, None, None] if G.ndim == 2 else G
    if gradient.ndim != 4 or gradient.shape[1] != outputs:
        raise TransplantError(
            f"G has shape {tuple(G.shape)} and the module has {outputs} outputs; "
            f"G must be (N, {outputs}) or (N, {outputs}, S, S)"
        )
    return rule.adjoint(gradient)


def _rule(layer: nn.Module, site: Site) -> Rule:
    layer_type = type(layer)
    kind = RULES.get(layer_type) or _RULES_BY_NAME.get(
        f"{layer_type.__module__}.{layer_type.__qualname__}"
    )
    if kind is None:
        named = {name.rpartition(".")[2] for name in _RULES_BY_NAME}
        known = sorted({*(known.__name__ for known in RULES), *named})
        raise TransplantError(
            f"layer '{site.path or '(top)'}' is a {layer_type.__name__}, which has no adjoint "
            f"rule; known are {', '.join(known)}: add one to "
            "rootstock.common.distillation.pseudo_gradients.adjoint.RULES"
        )
    return kind(layer, site)
