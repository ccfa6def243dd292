"""The trained nets that recipe `l2t` reads: safetensors files on the lab's disk, never unpickled.

Nothing is fetched: who has no file of weights has no source.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch
from torch import nn

from rootstock.common.errors import ConfigurationError, RootstockError, SchemaError
from rootstock.common.files import file_digest
from rootstock.common.l2t.taps import Source
from rootstock.common.nets.architectures import build_category_module, build_head
from rootstock.common.nets.spec import Shape
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.card import NetCard, read_card
from rootstock.common.weights.exported import load_composed
from rootstock.site_agent.config import L2tSource, PairNames

_CANNOT = (RootstockError, safetensors.SafetensorError, OSError, RuntimeError, ValueError)
"""What files, torchvision and nets raise where weights are not what they should be."""


@dataclass(frozen=True)
class LoadedSource:
    """One source, ready to be read."""

    source: Source
    description: str
    """For the manifest: what net it is and the SHA-256 of its file; no path."""


def load_sources(
    sources: tuple[L2tSource, ...],
    pairs: str | tuple[PairNames, ...],
    image_shape: Shape,
    device: torch.device,
) -> dict[str, LoadedSource]:
    """Load all sources, frozen.

    Parameters
    ----------
    sources
        As configured.
    pairs
        A list names the layers to be read; otherwise the ends of stages are.
    image_shape
        (C, H, W) of the lab's images: sources see the same as the target.
    device
        Where to train.

    Raises
    ------
    ConfigurationError
        If one cannot be loaded, has no such layer or does not take such images; names it.
    """
    loaded = {}
    for each in sources:
        layers = None
        if not isinstance(pairs, str):
            layers = list(dict.fromkeys(layer for name, layer, _ in pairs if name == each.name))
        what = f"training.l2t: source '{each.name}' ({each.path})"
        try:
            net, kind = _BUILT[each.kind](each)
        except _CANNOT as error:
            raise ConfigurationError(f"{what} cannot be loaded: {error}") from error
        try:
            source = Source(net, layers, image_shape)
        except _CANNOT as error:
            by = "×".join(map(str, image_shape))
            raise ConfigurationError(
                f"{what} cannot be read with images of {by}: {error}"
            ) from error
        source.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loaded[each.name] = LoadedSource(source, f"{kind} {file_digest(each.path)}")
    return loaded


def _net(each: L2tSource) -> tuple[nn.Module, str]:
    """Build f and, if the file holds its layers, a head of as many outputs as it has."""
    spec = each.architecture
    assert spec is not None  # noqa: S101  # the configuration is checked
    shapes = {name: entry.shape for name, entry in safetensors_io.read_header(each.path).items()}
    layers = dict(build_category_module(spec).named_children())
    head = [name for name, _ in build_head(spec, 1).named_children()]
    # A head's layer that is named as one of another architecture's f says nothing of the file.
    if any(name.partition(".")[0] in set(head) - layers.keys() for name in shapes):
        if twice := sorted(layers.keys() & set(head)):
            raise SchemaError(
                f"extractor '{spec.below().name}' and the layers above it both have a layer "
                f"'{twice[0]}', which a file can hold once only; give the category module alone"
            )
        last = shapes.get(f"{head[-1]}.weight", (1,))
        layers |= build_head(spec, last[0]).named_children()
    net = nn.Sequential(OrderedDict(layers))
    net.load_state_dict(safetensors.torch.load_file(each.path))
    return net, spec.below().name


def _torchvision(each: L2tSource) -> tuple[nn.Module, str]:
    from torchvision import models  # takes a second, which few callers need

    assert each.model is not None  # noqa: S101  # the configuration is checked
    state = safetensors.torch.load_file(each.path)
    with torch.device("meta"):
        blank = models.get_model(each.model, weights=None)
    last, default = list(blank.named_parameters())[-1]
    classes = len(state.get(last, default))
    with torch.random.fork_rng(devices=[]):
        net: nn.Module = models.get_model(each.model, weights=None, num_classes=classes)
    net.load_state_dict(state)
    return net, f"torchvision {each.model}"


def _export(each: L2tSource) -> tuple[nn.Module, str]:
    spec = read_card(each.path, NetCard).category_architecture
    return load_composed(each.path), f"export {spec.below().name}"


_BUILT = {"net": _net, "export": _export, "torchvision": _torchvision}
