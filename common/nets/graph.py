"""The transplant net as a graph: what a net version is made of, by digest. No tensors are read.

A tree names modules and adapters; a commit names a tree and where it came from (DESIGN.md, section
4). Trees only grow: the methods below return a larger tree and never take anything out.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from rootstock.common.documents import Document
from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import ArchitectureSpec, Name, Setting, TaskSpec
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, Digest

_NAMED_JOINS = 12
"""Joins that an error names: a net may have thousands."""


class ModuleRef(Document):
    """A category module or a task module of the net."""

    blob: BlobEntry
    architecture: ArchitectureSpec
    submission: Digest
    """Digest of the signed manifest of the submission that it came with."""


class Edge(Document):
    """A join of a category module and a task module."""

    category: Name
    task: Name
    adapter: AdapterEntry | None = None
    """None joins them directly: the two were trained together, or are compatible as they are."""
    calibration: Calibration = Field(default=Calibration(), exclude_if=lambda found: found.identity)
    """Scales the output of this join. The identity is not written, so trees from before there were
    calibrations keep their digests."""
    error: float | None = Field(default=None, ge=0, le=100)
    """Percent on the owning lab's private validation data when it was merged, calibrated."""


class NetTree(Document):
    """Category modules × task modules, and the adapters that join them."""

    architecture: ArchitectureSpec
    tasks: tuple[TaskSpec, ...] = Field(min_length=1, max_length=16)
    category_modules: dict[Name, ModuleRef] = Field(default_factory=dict)
    task_modules: dict[Name, ModuleRef] = Field(default_factory=dict)
    edges: tuple[Edge, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _canonical_order(cls, data: object) -> object:
        """Sort the edges, so that the same net has the same digest however it grew."""
        if isinstance(data, dict) and isinstance(data.get("edges"), list | tuple):
            edges = [Edge.model_validate(edge) for edge in data["edges"]]
            return {**data, "edges": sorted(edges, key=lambda edge: (edge.category, edge.task))}
        return data

    @model_validator(mode="after")
    def _edges_join_what_is_there(self) -> Self:
        joins = [(edge.category, edge.task) for edge in self.edges]
        for category, task in joins:
            if category not in self.category_modules or task not in self.task_modules:
                raise ValueError(f"edge {category} → {task} joins a module that the net lacks")
        if len(set(joins)) != len(joins):
            raise ValueError("two edges join the same category module and task module")
        if odd := self.task_modules.keys() - {task.name for task in self.tasks}:
            raise ValueError(f"task module '{min(odd)}' serves none of the net's tasks")
        return self

    def edge(self, category: str, task: str) -> Edge:
        """Return the join of a category and a task."""
        for edge in self.edges:
            if (edge.category, edge.task) == (category, task):
                return edge
        raise NotFoundError(
            f"category '{category}' is not joined to task '{task}'; joined are: "
            f"{self._joins_near(category, task)}"
        )

    def digests(self) -> set[str]:
        """Return the digest of every blob that the net is made of."""
        refs = [*self.category_modules.values(), *self.task_modules.values()]
        adapters = [edge.adapter.blob.digest for edge in self.edges if edge.adapter is not None]
        return {ref.blob.digest for ref in refs} | set(adapters)

    def submissions(self) -> set[str]:
        """Return the digest of the manifest of every submission that the net came from."""
        refs = [*self.category_modules.values(), *self.task_modules.values()]
        return {ref.submission for ref in refs}

    def with_category(self, category: str, module: ModuleRef) -> NetTree:
        """Return the net with one more category module."""
        if category in self.category_modules:
            raise ConflictError(
                f"the net already has a category module '{category}'; a net version never changes "
                "what it holds: submit under another category name"
            )
        return self._grown(category_modules={**self.category_modules, category: module})

    def with_task(self, task: str, module: ModuleRef) -> NetTree:
        """Return the net with one more task module."""
        if task in self.task_modules:
            raise ConflictError(
                f"the net already has a task module '{task}'; a net version never changes what it "
                "holds: name the new task module differently"
            )
        return self._grown(task_modules={**self.task_modules, task: module})

    def with_edge(self, edge: Edge) -> NetTree:
        """Return the net with one more join."""
        if any((edge.category, edge.task) == (old.category, old.task) for old in self.edges):
            raise ConflictError(
                f"category '{edge.category}' is already joined to task '{edge.task}'; a net "
                "version never changes a join: transplant under another category name"
            )
        for kind, name, held in (
            ("category", edge.category, self.category_modules),
            ("task", edge.task, self.task_modules),
        ):
            if name not in held:
                raise NotFoundError(
                    f"the net has no {kind} module '{name}' to join; add it first. "
                    f"It holds: {', '.join(sorted(held)) or 'none'}"
                )
        return self._grown(edges=(*self.edges, edge))

    def _joins_near(self, category: str, task: str) -> str:
        edges = sorted(self.edges, key=lambda edge: (edge.category != category, edge.task != task))
        named = [f"{edge.category} → {edge.task}" for edge in edges[:_NAMED_JOINS]]
        more = len(edges) - len(named)
        return (", ".join(named) or "none") + (f" and {more} more" if more else "")

    def _grown(self, **changes: object) -> NetTree:
        return NetTree.model_validate({**dict(self), **changes})


class VersionCommit(Document):
    """A net version: an immutable state of the transplant net, with a parent."""

    tree: Digest
    parent: Digest | None = None
    """Digest of the parent's commit; None founds the net."""
    number: int = Field(ge=0)
    merge: dict[str, Setting | None] = Field(default_factory=dict, max_length=64)
    """What was done: merge id, operation, category, task, site, submission, errors, seconds."""
    created_at: str = Field(max_length=64)
    """ISO 8601 in UTC."""
    net: Digest | None = Field(default=None, exclude_if=lambda net: net is None)
    """SHA-256 of the coordinator's public key. Not written in commits from before there were
    statements: they keep their digests."""
    signature: str = Field(default="", pattern=r"^([0-9a-f]{128})?$")
    """Ed25519 by the coordinator, in hex: see `common.provenance.statements`."""

    def signed_bytes(self) -> bytes:
        """Return what the signature of a commit without a net is over: all but the signature."""
        return self.model_copy(update={"signature": ""}).canonical()
