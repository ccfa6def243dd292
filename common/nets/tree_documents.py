"""A tree's documents: a root that names shards, each with a share of the categories.

A merge writes the root and one shard anew and shares the others with its parent, as git's trees do:
what a version costs on the disk does not grow with the net. Which shard a category is in follows
from its name alone, so that the same net has the same digest however it grew.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from rootstock.common.documents import Document, first_problem
from rootstock.common.errors import SchemaError
from rootstock.common.nets.graph import Edge, ModuleRef, NetTree
from rootstock.common.nets.spec import ArchitectureSpec, Name, TaskSpec
from rootstock.common.weights.manifest import Digest

SHARDS = 64
"""A root of all shards has 5 KB, a shard of a net of 500 categories 8 of them."""

ShardKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}$")]


class TreeShard(Document):
    """Some category modules, and every join of theirs."""

    category_modules: dict[Name, ModuleRef]
    edges: tuple[Edge, ...]


class TreeRoot(Document):
    """A tree's root: task modules here, categories in shards, by digest."""

    architecture: ArchitectureSpec
    tasks: tuple[TaskSpec, ...] = Field(min_length=1, max_length=16)
    task_modules: dict[Name, ModuleRef]
    shards: dict[ShardKey, Digest] = Field(max_length=SHARDS)


def shard_of(category: str) -> str:
    """Return the key of the shard that a category is in, two hex digits."""
    first = hashlib.sha256(category.encode()).digest()[0]
    return f"{first % SHARDS:02x}"


def shards(tree: NetTree) -> dict[str, TreeShard]:
    """Return a tree's shards by key."""
    modules: defaultdict[str, dict[str, ModuleRef]] = defaultdict(dict)
    edges: defaultdict[str, list[Edge]] = defaultdict(list)
    key_of = {category: shard_of(category) for category in tree.category_modules}
    for category, module in tree.category_modules.items():
        modules[key_of[category]][category] = module
    for edge in tree.edges:
        edges[key_of[edge.category]].append(edge)
    return {
        key: TreeShard(category_modules=modules[key], edges=tuple(edges[key]))
        for key in sorted(modules)
    }


def root(tree: NetTree, digests: dict[str, str]) -> TreeRoot:
    """Return a tree's root, given its shards' digests by key."""
    return TreeRoot(
        architecture=tree.architecture,
        tasks=tree.tasks,
        task_modules=tree.task_modules,
        shards=digests,
    )


def tree_digest(tree: NetTree) -> str:
    """Return what names a tree: its root's SHA-256, in hex."""
    digests = {key: shard.content_digest() for key, shard in shards(tree).items()}
    return root(tree, digests).content_digest()


def assembled(found: TreeRoot, read: Callable[[str], TreeShard]) -> NetTree:
    """Put a tree together; `read` returns the shard of a digest."""
    modules: dict[str, ModuleRef] = {}
    edges: list[Edge] = []
    for key, digest in found.shards.items():
        shard = read(digest)
        if strays := [name for name in shard.category_modules if shard_of(name) != key]:
            raise SchemaError(
                f"the tree's shard {key} holds category '{strays[0]}', whose shard is "
                f"{shard_of(strays[0])}; the tree was not written by a coordinator"
            )
        modules |= shard.category_modules
        edges += shard.edges
    try:
        return NetTree(
            architecture=found.architecture,
            tasks=found.tasks,
            category_modules=modules,
            task_modules=found.task_modules,
            edges=tuple(edges),
        )
    except ValidationError as error:
        raise SchemaError(f"the parts make no tree: {first_problem(error)}") from error
