"""Which tensors of a blob need not travel: those whose very bytes are in the net already.

Only modules of the present net version count. Every lab may read them, so that a lab that names a
tensor's digest gets nothing that it could not have had; what another lab has shipped and is not in
the net, and samples, are never looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rootstock.common.documents import canonical_json
from rootstock.common.errors import IntegrityError, NotFoundError, RefusedError
from rootstock.common.nets.graph import NetTree
from rootstock.common.transport.dedup import Place, held_bytes
from rootstock.common.weights.manifest import BlobEntry, TensorEntry
from rootstock.common.weights.safetensors_header import HeaderTensor
from rootstock.common.weights.safetensors_io import read_header
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.registry import HeldAt

WORTHWHILE_BYTES = 16 << 10
"""Tensors are left out where they save at least so much: filling a blob up reads and writes it
once more, and below this a blob is a chunk or two either way."""

_SHORT = 16
"""Hex digits of a set's name in the name of a partial file."""


@dataclass(frozen=True)
class Stripped:
    """A blob of an upload, without the tensors that need not travel.

    Attributes
    ----------
    upload_id
        The upload's.
    entry
        What the manifest says of the blob.
    held
        Where the coordinator has each tensor that is left out.
    """

    upload_id: str
    entry: BlobEntry
    held: Mapping[str, HeldAt]

    @property
    def held_bytes(self) -> int:
        """Bytes that do not travel."""
        return held_bytes(self.entry, self.held)

    @property
    def size(self) -> int:
        """Bytes that travel."""
        return self.entry.size - self.held_bytes

    @cached_property
    def name(self) -> str:
        """Names the set: what came without other tensors is nothing to resume from."""
        return hashlib.sha256(canonical_json(sorted(self.held))).hexdigest()[:_SHORT]


class TensorDedup:
    """Decides once for every blob of an upload, and keeps to it whatever becomes of the net."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context = context
        self._seen: tuple[str, dict[TensorEntry, HeldAt]] | None = None

    def decide(self, upload_id: str, entry: BlobEntry) -> Stripped | None:
        """Return a blob without what the net holds; None: it travels as a whole.

        The first decision to leave tensors out stands, also when the net has another version
        since: blobs of a net are never deleted.
        """
        uploads = self._context.registry.uploads
        if (known := uploads.held(upload_id, entry.digest)) is not None:
            return self._stripped(upload_id, entry, known)
        held = self._in_net(entry)
        count = held_bytes(entry, held)
        if count < WORTHWHILE_BYTES:
            return None  # not written down: the net may hold more by the next call
        return self._stripped(upload_id, entry, uploads.hold(upload_id, entry.digest, held, count))

    def decided(self, upload_id: str, entry: BlobEntry) -> Stripped | None:
        """Return what was decided before."""
        known = self._context.registry.uploads.held(upload_id, entry.digest)
        return self._stripped(upload_id, entry, known or {})

    def bytes_of(self, upload_id: str, entries: Iterable[BlobEntry]) -> int:
        """Return how many bytes of an upload's blobs need not travel, or did not."""
        decided = (self.decided(upload_id, entry) for entry in entries)
        return sum(stripped.held_bytes for stripped in decided if stripped is not None)

    def refuse(self, upload_id: str, digest: str) -> None:
        """Have a blob travel as a whole from now on."""
        self._context.registry.uploads.hold_nothing(upload_id, digest)

    def paths(self, stripped: Stripped) -> Callable[[str], Place]:
        """Return what says where the bytes of a tensor that was left out stand.

        That raises `IntegrityError` if they are not there any more, so that the blob has to come as
        a whole, and `UnreachableError` if the store does not answer.
        """
        limits = self._context.plan.limits
        headers: dict[str, tuple[Path, dict[str, HeaderTensor]]] = {}

        def place(name: str) -> Place:
            at = stripped.held[name]
            try:
                if at.blob not in headers:
                    path = self._context.store.local_path(at.blob)
                    headers[at.blob] = path, read_header(path, limits=limits)
                path, header = headers[at.blob]
                tensor = header[at.tensor]
            except (RefusedError, NotFoundError, KeyError) as error:
                raise IntegrityError(
                    f"tensor '{name}' of blob {stripped.entry.digest} was to come from blob "
                    f"{at.blob}, which is not whole here any more; send the blob as a whole"
                ) from error
            return Place(path, tensor.begin, tensor.end)

        return place

    def _stripped(
        self, upload_id: str, entry: BlobEntry, held: Mapping[str, HeldAt]
    ) -> Stripped | None:
        return Stripped(upload_id, entry, held) if held else None

    def _in_net(self, entry: BlobEntry) -> dict[str, HeldAt]:
        """Return which tensors of a blob stand in modules of the net."""
        head = self._context.head()
        if head is None:
            return {}
        seen = self._seen
        if seen is None or seen[0] != head.tree:
            seen = head.tree, _tensors(self._context.tree_of(head))
            self._seen = seen
        found = {name: seen[1].get(tensor) for name, tensor in entry.tensors.items()}
        there = {
            blob: self._context.store.has(blob)
            for blob in {at.blob for at in found.values() if at is not None}
        }
        return {name: at for name, at in found.items() if at is not None and there[at.blob]}


def _tensors(tree: NetTree) -> dict[TensorEntry, HeldAt]:
    """Return where each tensor of a net's modules stands: dtype, shape and digest are the key."""
    modules = [*tree.category_modules.values(), *tree.task_modules.values()]
    return {
        tensor: HeldAt(module.blob.digest, name)
        for module in modules
        for name, tensor in module.blob.tensors.items()
    }
