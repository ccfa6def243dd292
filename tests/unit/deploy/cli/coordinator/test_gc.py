"""`coordinator gc` on a grown net: the rest of the command line answers as before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.config import load
from rootstock.common.errors import NotFoundError
from rootstock.common.identity.keys import load_or_create
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.publish import publish_plan
from tests.support.grown_net import Command, GrownNet


def everything(command: Command, grown: GrownNet, folder: Path) -> dict[str, Any]:
    """Ask for all that a net can be asked for, of every version and every join."""
    config = ("--config", grown.config)
    told: dict[str, Any] = {"log": command.json("net", "log", *config)}
    for number in (1, 2, 3):
        told[f"show {number}"] = command.json("net", "show", *config, "--version", number)
        # Submissions are made up here, so that there are problems, and they stay the same.
        verified = command.json("net", "verify", *config, "--version", number)
        del verified["unsigned"]  # the coordinator that collects signs what none has signed yet
        told[f"verify {number}"] = verified
    told["diff"] = command.json("net", "diff", 1, 3, *config)
    for category, task in (("cat", "classification"), ("cow", "segmentation")):
        out = folder / f"{category}.safetensors"
        join = ("--category", category, "--task", task, "--out", out)
        told[f"export {category}"] = command.text("net", "export", *config, *join)
        told[f"weights {category}"] = out.read_bytes()
    return told


def aged(store: LocalStore) -> None:
    for blob in store.blobs():
        os.utime(store.local_path(blob.digest), (0, 0))


def test_what_is_collected_is_missed_by_nobody(
    command: Command, grown: GrownNet, tmp_path: Path
) -> None:
    settings = load(grown.config, CoordinatorConfig)
    load_or_create(StatePaths(settings).key)
    publish_plan(settings, grown.store, StatePaths(settings).plan)
    before = everything(command, grown, tmp_path)
    kept = {blob.digest for blob in grown.store.blobs()}
    old = {grown.store.put_bytes(data) for data in (b"a checkpoint", b"an orphan tree")}
    aged(grown.store)
    young = grown.store.put_bytes(b"just learned")
    gc = ("coordinator", "gc", "--config", grown.config)
    told = command.json(*gc, "--dry-run")
    assert told["dry_run"] is True
    assert set(told["digests"]) == old
    assert told["deleted"] == {"blobs": 2, "bytes": 26}
    assert told["kept"]["young"] == {"blobs": 1, "bytes": 12}
    assert {blob.digest for blob in grown.store.blobs()} == kept | old | {young}
    text = command.text(*gc, "--dry-run")
    assert "to delete           2 blobs         0.0 MB" in text
    assert f"net          {told['kept']['net']['blobs']:>8} blobs" in text
    assert command.json(*gc) == {**told, "dry_run": False}
    assert {blob.digest for blob in grown.store.blobs()} == kept | {young}
    assert everything(command, grown, tmp_path) == before
    assert command.json(*gc)["deleted"] == {"blobs": 0, "bytes": 0}


def test_where_no_coordinator_has_run_there_is_nothing_to_collect(
    command: Command, grown: GrownNet
) -> None:
    (grown.config.parent / "state" / "registry.sqlite").unlink()
    with pytest.raises(NotFoundError, match="no coordinator has run here"):
        command.json("coordinator", "gc", "--dry-run", "--config", grown.config)
