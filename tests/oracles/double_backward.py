"""Pseudo-gradients the paper's way, "back-back-propagation": the oracle of tests and benchmarks.

A copy of the nets in which every layer is linear runs forward; autograd goes back through it with
create_graph, and then once more to the adapter's weights. Independent of the rules that it checks:
it knows how layers run forward (a block's wiring is its own forward's), not how gradients run back.

Shapes: N batch, O outputs, S side of an enlarged G, C channels of x, M of h(x), H/W of a map.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it
from torchvision.models.convnext import CNBlock, LayerNorm2d
from torchvision.ops.misc import SqueezeExcitation

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.pseudo_gradients.adjoint import output_shape
from rootstock.common.distillation.pseudo_gradients.rules import Shape
from rootstock.common.distillation.pseudo_gradients.signals import Draw
from rootstock.common.nets.adapter import Adapter


class _Dummy(nn.Module):
    """A ReLU's dummy derivative; a layer that runs at several places counts them."""

    def __init__(
        self, path: str, masks: Mapping[str, Tensor], asked: list[str], *, channels_last: bool
    ) -> None:
        super().__init__()
        self.path, self.masks, self.asked, self.calls = path, masks, asked, 0
        self.channels_last = channels_last

    def forward(self, x_NCHW: Tensor) -> Tensor:
        self.calls += 1
        name = self.path if self.path in self.masks else f"{self.path}{self.calls}"
        self.asked.append(name)
        if name not in self.masks:
            return x_NCHW
        mask = self.masks[name].to(x_NCHW.dtype)
        if self.channels_last:
            return x_NCHW * mask.movedim(1, -1)
        return x_NCHW * (mask if x_NCHW.ndim == 4 else mask.flatten(1))


class _Scale(nn.Module):
    """Eval BatchNorm without its shift."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x_NCHW: Tensor) -> Tensor:
        scaled: Tensor = self.norm(x_NCHW) - self.norm(torch.zeros_like(x_NCHW))
        return scaled


class _Centred(nn.Module):
    """A LayerNorm over channels without its shift and its division."""

    def __init__(self, norm: nn.LayerNorm, dim: int) -> None:
        super().__init__()
        self.weight, self.dim = norm.weight, dim

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(self.dim, keepdim=True)
        scaled: Tensor = centred.movedim(self.dim, -1) * self.weight
        back: Tensor = scaled.movedim(-1, self.dim)
        return back


class _HeldGate(nn.Module):
    """A squeeze-and-excitation whose gate is that of a map of zeros."""

    def __init__(self, gated: SqueezeExcitation) -> None:
        super().__init__()
        weight = gated.fc1.weight
        with torch.no_grad():
            self.gate_1C11: Tensor = gated._scale(weight.new_zeros(1, weight.shape[1], 5, 5))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW * self.gate_1C11


class _Windows(nn.Module):
    """A Flatten that slides: the features (N, C·h·w, S, S) of each h×w window."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.window = (height, width)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        places_H, places_W = (
            size - side + 1 for size, side in zip(x_NCHW.shape[2:], self.window, strict=True)
        )
        patches_NFP = F.unfold(x_NCHW, self.window)
        return patches_NFP.reshape(*patches_NFP.shape[:2], places_H, places_W)


class _Everywhere(nn.Module):
    """A Linear at each place of (N, F, S, S)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight

    def forward(self, x_NFSS: Tensor) -> Tensor:
        return F.linear(x_NFSS.movedim(1, 3), self.weight).movedim(3, 1)


def linearised(
    module: nn.Module, masks: Mapping[str, Tensor] | None = None, asked: list[str] | None = None
) -> nn.Module:
    """Return a copy with dummy derivatives, averages for maxima, and no biases.

    Parameters
    ----------
    module
        Any module of layers that pseudo-gradients know. The copy shares its weights.
    masks
        1(x_rand > 0) by path of the ReLU, looked up in each pass: they may change in between,
        unless a ReLU runs at several places.
    asked
        Collects the names under which ReLUs asked for masks.
    """
    asked = [] if asked is None else asked
    masks = {} if masks is None else masks
    shared = {id(parameter): parameter for parameter in module.parameters()}
    copied = copy.deepcopy(module, shared).eval()
    modules = list(copied.named_modules())
    gates: list[str] = []
    last = {f"{path}.block.4".lstrip(".") for path, m in modules if isinstance(m, CNBlock)}
    for path, layer in modules:
        if path.startswith(tuple(f"{gate}." for gate in gates)):
            continue
        if isinstance(layer, nn.ReLU | nn.ReLU6 | nn.SiLU | nn.GELU | nn.Hardswish):
            replaced: nn.Module = _Dummy(path, masks, asked, channels_last=path in last)
        elif isinstance(layer, nn.BatchNorm2d):
            replaced = _Scale(layer)
        elif isinstance(layer, nn.LayerNorm):
            replaced = _Centred(layer, 1 if isinstance(layer, LayerNorm2d) else -1)
        elif isinstance(layer, SqueezeExcitation):
            gates.append(path)
            replaced = _HeldGate(layer)
        elif isinstance(layer, nn.MaxPool2d):
            replaced = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
        else:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                layer.bias = None
            continue
        if not path:
            return replaced
        parent, _, name = path.rpartition(".")
        setattr(copied.get_submodule(parent), name, replaced)
    return copied


def sliding(module: nn.Module, input_shape_CHW: Shape) -> nn.Module:
    """Return a chain as it slides over larger pictures, which an enlarged G asks about.

    Flatten and Linear become what they are at each window; an adaptive pool whose windows are
    single pixels at the nominal size becomes the identity.
    """
    if not isinstance(module, nn.Sequential):
        return module
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    shape = input_shape_CHW
    for name, layer in module.named_children():
        next_shape = output_shape(layer, shape)
        layers[name] = layer
        if isinstance(layer, nn.Flatten) and len(shape) == 3:
            layers[name] = _Windows(*shape[1:])
        elif isinstance(layer, nn.Linear):
            layers[name] = _Everywhere(layer)
        elif isinstance(layer, nn.AdaptiveAvgPool2d) and next_shape == shape:
            layers[name] = nn.Identity()
        shape = next_shape
    return nn.Sequential(layers)


def slow_gradient(
    module: nn.Module,
    G: Tensor,
    channels: int,
    size_HW: tuple[int, ...],
    masks: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return d<G, linearised(x)>/dx for x of the given size; keeps the graph to the weights."""
    return _gradient(linearised(module, masks), G, channels, size_HW, create_graph=True)


class DoubleBackward:
    """The paper's step: ‖α D'_S − D'_T‖² of some draws, and its gradient at the adapter's weights.

    Parameters
    ----------
    problem
        The frozen task modules; shared, not copied.
    adapter
        h; shared, so its weights' gradients are those that are asked for.
    enlarged
        Whether G has more than one place.
    """

    def __init__(self, problem: TransplantProblem, adapter: Adapter, *, enlarged: bool) -> None:
        shape = problem.feature_shape
        self._masks: dict[str, Tensor] = {}
        self._channels = shape[0]
        self._weights = [conv.weight for conv in adapter.convolutions()]
        tasks: tuple[nn.Module, nn.Module] = (problem.teacher_task, problem.student_task)
        if enlarged:
            tasks = (
                sliding(problem.teacher_task, shape),
                sliding(problem.student_task, (adapter.spec.out_channels, *shape[1:])),
            )
        teacher, student = (linearised(task, self._masks) for task in tasks)
        self._teacher = teacher
        self._student = nn.Sequential(linearised(adapter), student)

    def gradient(
        self, draw: Draw, size_HW: tuple[int, int], *, alpha: float, scale: float
    ) -> list[Tensor]:
        """Return the gradient of scale · mean over draws of ‖α D'_S − D'_T‖², per convolution.

        Parameters
        ----------
        draw
            G and masks.
        size_HW
            Height and width of x: the feature map's, larger for an enlarged G.
        """
        self._masks.clear()
        self._masks.update(draw.masks)
        G = draw.G_NOSS
        D_T_NCHW = _gradient(self._teacher, G, self._channels, size_HW, create_graph=False)
        D_S_NCHW = _gradient(self._student, G, self._channels, size_HW, create_graph=True)
        square_N = (alpha * D_S_NCHW - D_T_NCHW).square().flatten(1).sum(1)
        return list(torch.autograd.grad(scale * square_N.mean(), self._weights))


def _gradient(
    linear: nn.Module, G: Tensor, channels: int, size_HW: tuple[int, ...], *, create_graph: bool
) -> Tensor:
    x_NCHW = G.new_zeros(len(G), channels, *size_HW).requires_grad_()
    y = linear(x_NCHW)
    G = G.reshape(y.shape) if G.numel() == y.numel() else G
    assert y.shape == G.shape, f"{y.shape} for a G of {G.shape}"
    (D_NCHW,) = torch.autograd.grad(y, x_NCHW, G, create_graph=create_graph)
    return D_NCHW
