"""Nets of torchvision and timm by their names there, split wherever they are a chain of maps.

A net is built once without memory for its values and taken apart (`common.nets.chains`). Published
weights go by the library's own names.

Shapes: N batch, C channels, H/W height and width of a map.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, PrivateAttr
from torch import nn

from rootstock.common.errors import SchemaError
from rootstock.common.nets.chains import Link, taken_apart
from rootstock.common.nets.declaration import Layer
from rootstock.common.nets.fcn import PooledSegmenting
from rootstock.common.nets.spec import Setting

MAX_PARAMETERS = 150_000_000
"""A larger net is refused: whoever writes a plan says what labs build. VGG-16 has 138 million."""

_ATTEMPT = (AssertionError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What nets raise on images that they cannot take."""


class LibraryNet(PooledSegmenting):
    """A net of a library. Its layers are named as there, with "_" for dots in a path."""

    input_size: int = Field(default=224, ge=32, le=512)
    in_channels: Literal[3] = 3
    _origin: _Origin = PrivateAttr()

    @classmethod
    def named(cls, library: str, model: str, settings: dict[str, Setting]) -> Self:
        """Return a net of "torchvision" or "timm"; SchemaError if there is no such net."""
        net = cls.model_validate(settings)
        net._origin = _Origin(library, model)
        _require_known(net._origin)
        return net

    def splits(self) -> Sequence[str]:
        """Return the layers that give a map, up to where maps are pooled for good."""
        return self._anatomy.splits

    def gives_signed(self, split: str) -> bool:
        """Return whether x may be negative; True where the layers below do not say."""
        return next((link.signed for link in self._anatomy.links if link.name == split), True)

    def layers(self, outputs: int) -> Sequence[Layer]:
        """Return the chain's layers; a net is built when the first of them is."""
        net = _LazyNet(self._origin, outputs)
        return [(link.name, net.builds(link)) for link in self._anatomy.links]

    def pooling(self, layers: Sequence[Layer]) -> int:  # noqa: ARG002
        """Return where maps are pooled to one place."""
        if not self._anatomy.pools:
            raise SchemaError(
                f"architecture '{self._origin}' does not pool its maps to one place, so it has no "
                "task module that segments; choose one that does"
            )
        return self._anatomy.pooling

    def own_name(self, published: str) -> str:
        """Translate the library's own name of a tensor."""
        # DenseNet's published files have "norm.1" where the net has "norm1".
        published = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", published)
        for link in self._anatomy.links:
            if link.path is not None and published.startswith(f"{link.path}."):
                return link.name + published[len(link.path) :]
        return published

    @property
    def _anatomy(self) -> _Anatomy:
        return _anatomy(self._origin, self.input_size)


class _Origin(NamedTuple):
    """A library, and the name of a net there."""

    library: str
    model: str

    def __str__(self) -> str:
        return f"{self.library}:{self.model}"


class _Anatomy(NamedTuple):
    """A net's chain for images of one size."""

    links: Sequence[Link]
    splits: Sequence[str]
    """Layers that give a map, (N, C, H, W) as large as the image in proportion."""
    pooling: int
    """Number of the first layer that gives no map any more."""
    pools: bool
    """Whether that one leaves a number a channel."""


class _LazyNet:
    """A net that is built when its first layer is, once on each device: meta for shapes."""

    def __init__(self, origin: _Origin, outputs: int) -> None:
        self._origin, self._outputs = origin, outputs
        self._nets: dict[torch.device, nn.Module] = {}

    def builds(self, link: Link) -> Callable[[], nn.Module]:
        return lambda: link.of(self._net())

    def _net(self) -> nn.Module:
        device = torch.get_default_device()
        if device not in self._nets:
            self._nets[device] = _built(self._origin, self._outputs)
        return self._nets[device]


def _require_known(origin: _Origin) -> None:
    """Refuse a library, or a net, that is not there."""
    names = _names(origin.library)
    if origin.model in names:
        return
    near = [name for name in names if origin.model.split("_")[0].split("-")[0][:5] in name]
    raise SchemaError(
        f"unknown architecture '{origin}': {origin.library} has no net of that name; it has "
        f"{', '.join(near[:8] or names[:8])} and others"
    )


@cache
def _names(library: str) -> list[str]:
    if library == "torchvision":
        from torchvision import models  # takes a second; few callers need it

        return list(models.list_models(module=models))
    if library == "timm":
        try:
            import timm
        except ModuleNotFoundError as error:
            raise SchemaError(
                "nets named 'timm:…' need timm, which is not installed here; install "
                "rootstock-federation[timm]"
            ) from error
        return list(timm.list_models())
    raise SchemaError(
        f"unknown library '{library}' of an architecture; known are 'torchvision:NAME' and "
        "'timm:NAME'"
    )


def _built(origin: _Origin, outputs: int) -> nn.Module:
    """Build a net whose values, but for those that are drawn later, are the same everywhere."""
    device = torch.get_default_device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            net = _constructed(origin, outputs)
        except NotImplementedError:
            # Some look at numbers as they are built, which the meta device has not.
            with torch.device("cpu"):
                net = _constructed(origin, outputs)
            net = net.to(device)
    for module in net.modules():
        if hasattr(module, "inplace"):
            # The layer below may be f's last, whose features are kept.
            setattr(module, "inplace", False)  # noqa: B010  # which of them have it, types cannot say
    return net


def _constructed(origin: _Origin, outputs: int) -> nn.Module:
    net: nn.Module
    if origin.library == "torchvision":
        from torchvision import models

        builder = models.get_model_builder(origin.model)
        parameters = int(models.get_model_weights(builder).DEFAULT.meta["num_params"])
        _require_size(origin, parameters)
        # These two have classifiers beside the chain in training, and draw values for minutes.
        plain = {"aux_logits": False, "init_weights": False}
        settings = plain if origin.model in ("googlenet", "inception_v3") else {}
        net = builder(weights=None, num_classes=outputs, **settings)
    else:
        import timm

        with torch.device("meta"):
            counted = timm.create_model(origin.model, pretrained=False)
        _require_size(origin, sum(p.numel() for p in counted.parameters()))
        net = timm.create_model(origin.model, pretrained=False, num_classes=outputs)
    return net


def _require_size(origin: _Origin, parameters: int) -> None:
    if parameters > MAX_PARAMETERS:
        raise SchemaError(
            f"architecture '{origin}' has {parameters:,} parameters, and {MAX_PARAMETERS:,} is the "
            "most; choose a smaller one"
        )


_found: dict[tuple[_Origin, int], _Anatomy | str] = {}
"""Anatomies by net and input size, and why there is none."""
_ROOM = 256
_finding = Lock()
"""One at a time: names come from peers, too."""


def _anatomy(origin: _Origin, input_size: int) -> _Anatomy:
    """Take a net apart on the meta device; SchemaError if it is no chain."""
    key = origin, input_size
    if key not in _found:
        with _finding:
            if key not in _found:
                if len(_found) >= _ROOM:
                    _found.clear()
                try:
                    _found[key] = _taken_apart(origin, input_size)
                except SchemaError as error:
                    _found[key] = str(error)
    found = _found[key]
    if isinstance(found, str):
        raise SchemaError(found)
    return found


def _taken_apart(origin: _Origin, input_size: int) -> _Anatomy:
    with torch.device("meta"):
        try:
            net = _built(origin, 1)
            links = taken_apart(net, torch.empty(2, 3, input_size, input_size))
        except SchemaError as error:
            raise SchemaError(
                f"architecture '{origin}' cannot be split: {error}; choose another net"
            ) from error
        except _ATTEMPT as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise SchemaError(
                f"architecture '{origin}' cannot take images of {input_size}×{input_size} "
                f"({reason}); set another input_size, or choose another net"
            ) from error
        try:
            wide = taken_apart(net, torch.empty(2, 3, input_size, 2 * input_size))
        except (SchemaError, *_ATTEMPT):  # it takes images of one shape only
            wide = []
    layers = [link.of(net) for link in links]
    while len(layers) > 1 and _is_identity(layers[-1], above=layers[-2]):
        links, layers = links[:-1], layers[:-1]
    if not isinstance(layers[-1], nn.Linear):
        raise SchemaError(
            f"architecture '{origin}' ends in layer '{links[-1].name}', a "
            f"{type(layers[-1]).__name__}, where a task's logit is a Linear layer's; choose "
            "another net"
        )
    pairs = zip(links, wide, strict=False)
    maps = [n for n, (one, other) in enumerate(pairs) if _is_map(one.shape, other.shape)]
    if not maps:
        raise SchemaError(
            f"architecture '{origin}' cannot be split: none of its layers gives a map (channels, "
            "height, width) that grows with the image; choose a convolutional net"
        )
    last = maps[-1]
    pools = links[last + 1].shape[1:].numel() == links[last].shape[1]
    return _Anatomy(links, [links[n].name for n in maps], last + 1, pools)


def _is_identity(layer: nn.Module, *, above: nn.Module) -> bool:
    """Return whether a net's last layer leaves logits as they are."""
    return isinstance(layer, nn.Identity) or (
        isinstance(layer, nn.Flatten) and isinstance(above, nn.Linear)
    )


def _is_map(shape: torch.Size, wide: torch.Size) -> bool:
    """Return whether an output is (N, C, H, W): an image twice as wide widens its last side."""
    return len(shape) == 4 and shape[:3] == wide[:3] and wide[3] > shape[3]
