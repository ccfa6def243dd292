"""The plan: what the coordinator asks of every lab, so that the nets they train can be joined."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import AfterValidator, Field

from rootstock.common.documents import Document
from rootstock.common.nets.spec import ArchitectureSpec, Name, TaskSpec
from rootstock.common.weights.manifest import BlobEntry, Digest

PROTOCOL_MINIMUM = 1
PROTOCOL_MAXIMUM = 1
"""Versions of rootstock.federation that this build speaks, both ends included."""

NO_LABEL = 255
"""A pixel without a label in a mask, which is uint8: 1 the category, 0 the rest."""


def receipt_bytes(manifest_digest: str, subject: str, received_at: str) -> bytes:
    """Return what a receipt's signature is over; the subject is the submission's or upload's id."""
    return f"{manifest_digest} {subject} {received_at}".encode()


def evaluation_id(merge_id: str, turn: int = 1) -> str:
    """Return the id of a merge's question: "evl-0007" for "mrg-0007", "evl-0007-2" the second."""
    first = merge_id.replace("mrg-", "evl-", 1)
    return first if turn == 1 else f"{first}-{turn}"


WITNESSES_PER_MERGE = 64
"""Other labs that are asked about a join, at most."""


def witness_id(merge_id: str, number: int, turn: int = 1) -> str:
    """Return the id of a merge's question to its witness of that number, from 1, at that turn."""
    return f"{evaluation_id(merge_id, turn)}-rest-{number}"


def join_bytes(token_id: str, request: bytes) -> bytes:
    """Return what a site signs to join: that its signing key goes with this request for TLS's."""
    return f"rootstock-join-v1\n{token_id}\n{hashlib.sha256(request).hexdigest()}".encode()


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds control characters, which a terminal would obey; leave them out")
    return text


MAX_PLAN_BYTES = 1 << 24
"""Of a plan that is read from a file or a store."""


class Limits(Document):
    """Caps on what a lab may send; the coordinator applies the same ones."""

    max_blob_bytes: int = Field(default=4 << 30, ge=1 << 10)
    """Largest safetensors file. VGG-16 in float32 has 553 MB."""
    max_shared_samples: int = Field(default=1000, ge=0)
    chunk_bytes: int = Field(default=1 << 20, ge=1 << 12, le=2 << 20)
    """Bytes a chunk. 1 MiB amortises a message's cost and stays under gRPC's 4 MiB default cap."""


class PublishedStart(Document):
    """Where a plan's initial weights are from, if they were published and not drawn."""

    source: Annotated[str, Field(max_length=200), AfterValidator(_printable)]
    licence: Annotated[str, Field(max_length=200), AfterValidator(_printable)]
    """As its source states it, or the coordinator's operator."""
    digest: Digest
    """SHA-256 of the file that they were read from."""
    left_out: tuple[Annotated[str, Field(max_length=200)], ...] = Field(max_length=4096)
    """The file's tensors that have no place in the net."""
    drawn: tuple[Annotated[str, Field(max_length=200)], ...] = Field(max_length=4096)
    """The net's tensors that are not in the file and begin as drawn, a task module's as
    task/name."""


class Plan(Document):
    """Published by the coordinator, addressed by its digest."""

    net: Name
    architecture: ArchitectureSpec
    tasks: tuple[TaskSpec, ...] = Field(min_length=1, max_length=16)
    initial_category_module: BlobEntry
    initial_task_modules: dict[Name, BlobEntry]
    """Common initial weights make the units of independent teachers correspond (METHODS 1g)."""
    limits: Limits = Limits()
    start: PublishedStart | None = Field(default=None, exclude_if=lambda start: start is None)
    """None: drawn. Not written then: plans from before keep their digests."""

    def task(self, name: str) -> TaskSpec | None:
        """Return the task of that name, or None."""
        return next((task for task in self.tasks if task.name == name), None)

    def blobs(self) -> list[BlobEntry]:
        """Return what a lab downloads."""
        return [self.initial_category_module, *self.initial_task_modules.values()]


class Heads(Document):
    """Frozen auxiliary heads, published beside the plan (Compatible Representations).

    A lab that trains its category module below them, too, ships one whose features other labs'
    task modules understand. A document of its own, so that heads can be replaced while the plan,
    which every teacher net was trained under, stays.
    """

    number: int = Field(ge=1)
    """Counts up; a lab that has seen number 3 has nothing to learn from number 2."""
    origin: Annotated[str, Field(max_length=200), AfterValidator(_printable)]
    """Where they come from, for people."""
    task_modules: dict[Name, BlobEntry] = Field(max_length=16)
    """By task, of the plan's architecture: what discriminates the classes in common (DCC)."""
    rotation: BlobEntry | None = None
    """Tells by how many quarter turns an image was turned (RP): `common.compatible.rotation`."""

    def blobs(self) -> list[BlobEntry]:
        """Return what a lab downloads."""
        rotation = [] if self.rotation is None else [self.rotation]
        return [*self.task_modules.values(), *rotation]
