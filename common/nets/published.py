"""Published weights as the start of a net: which tensor goes where, checked whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import own_name, own_tensor
from rootstock.common.nets.branches import DEEP
from rootstock.common.nets.spec import ArchitectureSpec

_COUNT = "num_batches_tracked"
"""BatchNorm's count of batches, which files leave out and nothing needs."""

_PREFIXES = ("category_module.", "task_module.")
"""Of the tensors of an exported net, which go by our own names."""

_NAMED = 3


class Taken(NamedTuple):
    """What became of the tensors of published weights."""

    left_out: tuple[str, ...]
    """Tensors of the file that have no place in the net, by the file's names."""
    drawn: tuple[str, ...]
    """Tensors of the net that the file has not, and that begin as they were drawn."""


def take_published(
    spec: ArchitectureSpec,
    category_module: nn.Sequential,
    task_modules: Mapping[str, nn.Sequential],
    published: Mapping[str, Tensor],
) -> Taken:
    """Put published weights of an architecture into f and every g, in place.

    The last linear layer of a g answers another question than the published one, and a g without
    one, which segments, has layers of its own: they stay as they were drawn. All else has to be
    there, with its shape. SchemaError names the tensor, and changes nothing.
    """
    theirs: dict[str, str] = {}
    for name in published:
        stripped = next((name.removeprefix(p) for p in _PREFIXES if name.startswith(p)), name)
        theirs[own_name(spec, stripped)] = name
    filled: dict[nn.Module, dict[str, Tensor]] = {}
    used: set[str] = set()
    drawn: list[str] = []
    for part in _parts(category_module, task_modules):
        state = dict(part.module.state_dict())
        sought = {name: part.published(name) for name in state}
        found = {name: theirs[there] for name, there in sought.items() if there in theirs}
        missing = [name for name in state if name not in found and not name.endswith(_COUNT)]
        if refused := [name for name in missing if not part.may_lack(name)]:
            raise SchemaError(
                f"the published weights have no tensor for {_listed(refused)} of {spec.described()}"
                f" ({len(refused)} of {len(state)} are missing); give weights of this architecture"
            )
        for name, of_file in found.items():
            given = own_tensor(spec, part.published(name), published[of_file])
            if part.segments and given.ndim == 2 and given.numel() == state[name].numel():
                given = given.reshape(state[name].shape)  # a linear layer as a convolution
            if given.shape != state[name].shape:
                if part.may_lack(name):
                    missing.append(name)
                    continue
                raise SchemaError(
                    f"the published tensor '{of_file}' has shape {tuple(given.shape)}, "
                    f"'{name}' of {spec.described()} has {tuple(state[name].shape)}; give weights "
                    "of this architecture and these settings"
                )
            if given.is_floating_point() != state[name].is_floating_point():
                raise SchemaError(
                    f"the published tensor '{of_file}' is {given.dtype}, '{name}' of "
                    f"{spec.described()} is {state[name].dtype}; give weights that are not "
                    "quantised"
                )
            given = given.to(state[name].dtype)
            if not bool(torch.isfinite(given).all()):
                raise SchemaError(
                    f"the published tensor '{of_file}' holds numbers that are not finite as "
                    f"{given.dtype}; fetch the file again"
                )
            state[name] = given
            used.add(of_file)
        drawn += sorted(f"{part.label}{name}" for name in missing)
        filled[part.module] = state
    for module, state in filled.items():
        module.load_state_dict(state)
    return Taken(tuple(sorted(published.keys() - used)), tuple(drawn))


class _Part(NamedTuple):
    """A module that is to be filled."""

    module: nn.Sequential
    label: str
    """Before its tensors' names where they are listed."""
    own: str
    """Its layer that may stay as it was drawn, "" if none may."""
    segments: bool = False
    """Whether it is a g that segments, of whose layers any may."""

    def published(self, name: str) -> str:
        """Return the name of a tensor where the net is one chain, not branches in branches."""
        return name.rpartition(f"{DEEP}.")[2] if self.segments else name

    def may_lack(self, name: str) -> bool:
        return self.segments or name.rpartition(".")[0] == self.own


def _parts(
    category_module: nn.Sequential, task_modules: Mapping[str, nn.Sequential]
) -> Iterator[_Part]:
    yield _Part(category_module, "", "")
    for task, module in task_modules.items():
        last, layer = list(module.named_children())[-1]
        classifies = isinstance(layer, nn.Linear)
        yield _Part(module, f"{task}/", last if classifies else "", segments=not classifies)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more
