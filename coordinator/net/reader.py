"""Reads a coordinator's nets from its state folder; nothing is changed, no server is needed."""

from __future__ import annotations

from typing import Self

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.artifacts.uri import open_store
from rootstock.common.errors import NotFoundError
from rootstock.common.nets.graph import NetTree, VersionCommit
from rootstock.coordinator.config import StateConfig
from rootstock.coordinator.net.objects import read_commit, read_tree
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import NetVersion, Registry


class NetReader:
    """Net versions of one coordinator."""

    def __init__(self, registry: Registry, store: BlobStore) -> None:
        self.registry = registry
        self.store = store
        self._read: tuple[str, NetTree] | None = None

    @classmethod
    def open(cls, config: StateConfig) -> Self:
        """Open the database and the store that a configuration names.

        Raises NotFoundError if no coordinator has run there, ConfigurationError if the database's
        schema is another Rootstock's.
        """
        paths = StatePaths(config)
        if config.database is None and not paths.database_file.exists():
            raise NotFoundError(
                f"{paths.database_file}: no coordinator has run here; "
                "start `rootstock coordinator run`"
            )
        registry = Registry(paths.database, read_only=True)
        return cls(registry, open_store(paths.artifacts, paths.cache))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.close()

    @property
    def head(self) -> int | None:
        """Number of the newest net version."""
        head = self.registry.versions.head()
        return head.number if head else None

    def commit(self, number: int) -> VersionCommit:
        """Return a version's commit."""
        return read_commit(self.store, self.registry.versions.get(number).digest)

    def history(self, number: int, limit: int | None = None) -> list[VersionCommit]:
        """Return a version's commit and its ancestors', newest first; `limit` of them at most."""
        rows = {row.number: row for row in self.registry.versions.all()}
        row = self.registry.versions.get(number)
        line = [row]
        while row.parent is not None and len(line) != limit:
            row = rows[row.parent]
            line.append(row)
        return [read_commit(self.store, row.digest) for row in line]

    def tree(self, number: int) -> NetTree:
        """Return a version's tree."""
        return read_tree(self.store, self.commit(number).tree)

    def tree_of(self, version: NetVersion) -> NetTree:
        """Return the tree that the registry says is a version's; the last one is remembered."""
        read = self._read  # threads may replace it
        if read is None or read[0] != version.tree:
            self._read = read = version.tree, read_tree(self.store, version.tree)
        return read[1]
