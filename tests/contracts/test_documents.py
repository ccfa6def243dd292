"""What is stored, signed, configured or printed as JSON: its keys, and its bytes in old states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.documents import Document
from rootstock.common.nets.graph import VersionCommit
from rootstock.common.nets.tree_documents import TreeRoot, TreeShard
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights.manifest import RefinementManifest, TeacherManifest
from tests.contracts.golden import opening
from tests.contracts.promises import require_promise
from tests.contracts.surface.documents import NAME, STORED, present


def test_keys_are_as_recorded() -> None:
    require_promise(NAME, present())


@pytest.mark.parametrize("release", opening.releases())
def test_stored_documents_keep_their_bytes(release: str, tmp_path: Path) -> None:
    """A digest names bytes: what an old document says is written as it was."""
    state = opening.unpack(release, tmp_path).parent / "state"
    store = LocalStore(state / "artifacts")
    found = [data for blob in store.blobs() if (data := _json(store, blob.digest)) is not None]
    found += [(state / name).read_bytes() for name in ("plan.json", "heads.json")]
    seen = dict.fromkeys(STORED, 0)
    for data in found:
        for kind in STORED:
            if _is_one(kind, json.loads(data)):
                assert kind.parse(data, what=kind.__name__).canonical() == data
                seen[kind] += 1
    assert all(seen.values()), seen


def _json(store: LocalStore, digest: str) -> bytes | None:
    data = store.local_path(digest).read_bytes()
    return data if data.startswith(b"{") else None


def _is_one(kind: type[Document], value: dict[str, Any]) -> bool:
    """Say whether a document is of a kind, by keys that no other has together."""
    keys = {
        TeacherManifest: {"kind", "category_module"},
        RefinementManifest: {"kind", "adapter"},
        Plan: {"initial_category_module"},
        Heads: {"rotation"},
        TreeRoot: {"shards"},
        TreeShard: {"category_modules", "edges"},
        VersionCommit: {"parent", "signature"},
    }
    return keys[kind] <= value.keys()
