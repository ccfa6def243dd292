"""Upload deduplication: tensors whose bytes the net already has are not uploaded again.

Only modules of the present net version count. Every lab may read them, so that a lab that names a
tensor's digest gets nothing that it could not have had; what another lab has shipped and is not in
the net, and samples, are never looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import structlog

from rootstock.common.documents import canonical_json
from rootstock.common.errors import IntegrityError, NotFoundError, RefusedError
from rootstock.common.transport.dedup import Place, fill_up, held_bytes
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
class Transfer:
    """A blob of an upload as it travels: as a whole, or without tensors that the net has."""

    upload_id: str
    entry: BlobEntry
    held: Mapping[str, HeldAt] = field(default_factory=dict)
    """Where the coordinator has each tensor that is left out."""

    @property
    def digest(self) -> str:
        """The blob's."""
        return self.entry.digest

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
        """Names the set of tensors left out: another set's bytes are nothing to resume from."""
        return hashlib.sha256(canonical_json(sorted(self.held))).hexdigest()[:_SHORT]


class TensorDedup:
    """Decides once for every blob of an upload, and keeps to it whatever becomes of the net."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context = context
        self._uploads = context.registry.uploads
        self._net: tuple[str, dict[TensorEntry, HeldAt]] = ("", {})
        self._log = structlog.get_logger("uploads")

    def decide(self, upload_id: str, entry: BlobEntry) -> Transfer:
        """Return a blob without what the net has.

        The first decision to leave tensors out stays, also when the net has another version since:
        blobs of a net are never deleted.
        """
        held = self._uploads.held(upload_id, entry.digest)
        if held is None:
            held = self._in_net(entry)
            count = held_bytes(entry, held)
            if count < WORTHWHILE_BYTES:
                # Not recorded: the net may have more by the next call.
                return Transfer(upload_id, entry)
            held = self._uploads.hold(upload_id, entry.digest, held, count)
        return Transfer(upload_id, entry, held)

    def decided(self, upload_id: str, entry: BlobEntry) -> Transfer:
        """Return what was decided before; as a whole, if nothing was."""
        return Transfer(upload_id, entry, self._uploads.held(upload_id, entry.digest) or {})

    def bytes_of(self, upload_id: str, entries: Iterable[BlobEntry]) -> int:
        """Return how many bytes of an upload's blobs need not travel, or did not."""
        return sum(self.decided(upload_id, entry).held_bytes for entry in entries)

    def refuse(self, transfer: Transfer) -> None:
        """Have a blob travel as a whole from now on."""
        self._uploads.hold_nothing(transfer.upload_id, transfer.digest)

    def fill_up(self, transfer: Transfer, part: Path, target: Path) -> None:
        """Make the whole blob of what was sent, prove it and put it at the target, durably.

        RefusedError if it cannot be made, or is another blob: then it has to be sent as a whole.
        """
        context = {"upload": transfer.upload_id, "digest": transfer.digest}
        try:
            fill_up(part, target, transfer.entry, transfer.held, self._tensors_of(transfer))
        except RefusedError as error:
            self.refuse(transfer)
            self._log.warning("upload.fill_up_failed", **context, error=str(error))
            raise
        self._log.info(
            "upload.filled_up",
            **context,
            sent_bytes=transfer.size,
            held_bytes=transfer.held_bytes,
        )

    def _tensors_of(self, transfer: Transfer) -> Callable[[str], Place]:
        """Return a function that says where the bytes of a tensor that was left out are."""
        limits = self._context.plan.limits
        headers: dict[str, tuple[Path, dict[str, HeaderTensor]]] = {}

        def tensor_of(name: str) -> Place:
            at = transfer.held[name]
            try:
                if at.blob not in headers:
                    path = self._context.store.local_path(at.blob)
                    headers[at.blob] = path, read_header(path, limits=limits)
                path, header = headers[at.blob]
                tensor = header[at.tensor]
            except (RefusedError, NotFoundError, KeyError) as error:
                raise IntegrityError(
                    f"tensor '{name}' of blob {transfer.digest} was to be taken from blob "
                    f"{at.blob}, which is not whole here any more; send the blob as a whole"
                ) from error
            return Place(path, tensor.begin, tensor.end)

        return tensor_of

    def _in_net(self, entry: BlobEntry) -> dict[str, HeldAt]:
        """Return which tensors of a blob are in modules of the net; its tree is read once."""
        head = self._context.head()
        if head is None:
            return {}
        net = self._net  # threads may replace it
        if net[0] != head.tree:
            # Dtype, shape and digest are the key.
            tree = self._context.net.tree_of(head)
            self._net = net = (
                head.tree,
                {
                    tensor: HeldAt(module.blob.digest, name)
                    for module in (*tree.category_modules.values(), *tree.task_modules.values())
                    for name, tensor in module.blob.tensors.items()
                },
            )
        in_net = net[1]
        held = {name: in_net[each] for name, each in entry.tensors.items() if each in in_net}
        stored = {blob: self._context.store.has(blob) for blob in {at.blob for at in held.values()}}
        return {name: at for name, at in held.items() if stored[at.blob]}
