"""A history that was taken away is checked alone, and whatever changed in it is named."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rootstock.common.errors import ConflictError, IntegrityError, RefusedError
from rootstock.common.identity.keys import SigningKey, key_id, load
from rootstock.common.provenance.envelope import Envelope
from rootstock.common.provenance.log import LogEntry, LogHead, LogKind
from rootstock.common.provenance.merkle import Tree, leaf_hash
from rootstock.common.provenance.statements import STATEMENT_TYPE
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.provenance.bundle import write_bundle
from rootstock.coordinator.provenance.offline import verify_bundle
from rootstock.coordinator.registry import Access
from tests.support.coordinator_context import open_context
from tests.support.founded_net import SITE_KEY, commit, found
from tests.support.grown_net import Command

FLIPS = 40
"""Bytes of each file that are changed, one after the other."""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coordinator's state: two versions, a third that was rolled back, a lab with a new key."""
    folder = tmp_path_factory.mktemp("state")
    with open_context(folder) as context:
        found(context)
        tree = context.tree()
        assert tree is not None
        commit(context, tree)
        commit(context, tree)
        context.registry.versions.roll_back(3, "wrong labels")
        token = context.registry.invitations.create("dog-lab", Access.SITE, 3600.0, again=True)
        context.registry.invitations.redeem(token, SigningKey.generate().public_key)
    return folder


@pytest.fixture(scope="module")
def written(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    with open_context(state) as context:
        assert write_bundle(context.net, context.key, folder) == context.registry.log.size()
        with pytest.raises(ConflictError, match="holds something already"):
            write_bundle(context.net, context.key, folder)
    return folder


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "bundle")


def found_in(folder: Path) -> list[str]:
    """Return what is wrong with a bundle: where, and what."""
    try:
        _, problems = verify_bundle(folder)
    except RefusedError as error:
        return [str(error)]
    return [f"{each.where}: {each.what}" for each in problems]


def test_a_whole_bundle(bundle: Path) -> None:
    head, problems = verify_bundle(bundle, (bundle / "coordinator.pub").read_text())
    assert problems == []
    assert head.size == len((bundle / "log.jsonl").read_text().splitlines())
    assert {path.name for path in (bundle / "envelopes").iterdir()} == {
        *("sub-0001.json", "sub-0002.json", "sub-0003.json"),
        *("version-1.json", "version-2.json", "version-3.json"),
    }
    envelope = Envelope.parse((bundle / "envelopes" / "sub-0001.json").read_bytes(), what="it")
    envelope.opened(SITE_KEY.public_key, STATEMENT_TYPE, what="it")
    with pytest.raises(IntegrityError, match=r"coordinator\.pub: is key .*another net's history"):
        verify_bundle(bundle, SigningKey.generate().public_key.hex())


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_changed_byte_anywhere_is_found_and_named(bundle: Path) -> None:
    randomly = random.Random(0)
    for path in files(bundle):
        data = path.read_bytes()
        places = {0, len(data) - 1, *randomly.sample(range(len(data)), min(FLIPS, len(data)))}
        for place in sorted(places):
            changed = bytearray(data)
            changed[place] ^= randomly.choice((1, 2, 4, 0x20, 0x80))
            path.write_bytes(changed)
            found = found_in(bundle)
            assert found, (path.name, place)
            if path.name not in ("coordinator.pub", "head.json"):
                assert any(path.name in each for each in found), (path.name, place, found)
        path.write_bytes(data)
    assert found_in(bundle) == []


def test_a_file_that_is_gone_or_was_added_is_named(bundle: Path) -> None:
    for path in files(bundle):
        data = path.read_bytes()
        path.unlink()
        try:
            found = found_in(bundle)
        except LookupError as error:  # nothing begins without key and head
            found = [str(error)]
        assert any(path.name in each for each in found), (path.name, found)
        path.write_bytes(data)
    (bundle / "objects" / ("0" * 64)).write_bytes(b"")
    assert found_in(bundle) == [f"objects/{'0' * 64}: nothing in the log accounts for it"]


def swap_lines(folder: Path) -> None:
    path = folder / "log.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))


def cut_the_end(folder: Path) -> None:
    for name in ("log.jsonl", "leaves.txt"):
        path = folder / name
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def drop_the_last_entry(folder: Path) -> None:
    path = folder / "log.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize(
    ("forge", "expected"),
    [
        (swap_lines, "log.jsonl:1: is not the entry that was signed"),
        (cut_the_end, "leaves.txt: has "),
        (drop_the_last_entry, "log.jsonl: has "),
    ],
)
def test_a_log_that_was_rearranged(
    bundle: Path, forge: Callable[[Path], None], expected: str
) -> None:
    forge(bundle)
    assert found_in(bundle)[0].startswith(expected)


@pytest.mark.parametrize("kind", LogKind)
def test_a_coordinator_that_signs_nonsense(tmp_path: Path, kind: LogKind) -> None:
    """Whoever has a bundle verified did not write it: what is signed may say anything."""
    key = SigningKey.generate()
    for facts in ({}, {"site": 1, "public_key": "x", "manifest": [], "version": "1"}):
        folder = tmp_path / str(len(facts))
        folder.mkdir()
        at = "2026-01-01T00:00:00.000+00:00"
        entry = LogEntry(index=0, kind=kind, subject="?", by="?", at=at, facts=facts).canonical()
        leaf = leaf_hash(entry)
        head = LogHead(size=1, root=leaf.hex(), at=at, net=key_id(key.public_key))
        (folder / "coordinator.pub").write_text(key.public_key.hex())
        (folder / "head.json").write_bytes(head.sealed(key))
        (folder / "leaves.txt").write_text(f"{leaf.hex()}\n")
        (folder / "log.jsonl").write_bytes(entry + b"\n")
        found = found_in(folder)
        harmless = (LogKind.CERTIFICATE, LogKind.DECISION, LogKind.MERGE, LogKind.SUBMISSION)
        assert bool(found) == (kind not in harmless), found


def signed_log(folder: Path, *facts: tuple[LogKind, int, dict[str, object]]) -> Path:
    """Write a bundle whose coordinator has signed whatever a test says."""
    key, at = SigningKey.generate(), "2026-01-01T00:00:00.000+00:00"
    entries = [
        LogEntry(index=index, kind=kind, subject="s", by="?", at=at, facts=each).canonical()
        for kind, index, each in facts
    ]
    tree = Tree()
    for entry in entries:
        tree.append(leaf_hash(entry))
    head = LogHead(size=tree.size, root=tree.root().hex(), at=at, net=key_id(key.public_key))
    folder.mkdir()
    (folder / "coordinator.pub").write_text(key.public_key.hex())
    (folder / "head.json").write_bytes(head.sealed(key))
    (folder / "leaves.txt").write_text("".join(f"{leaf_hash(each).hex()}\n" for each in entries))
    (folder / "log.jsonl").write_bytes(b"".join(each + b"\n" for each in entries))
    return folder


def test_entries_are_numbered_as_they_stand(tmp_path: Path) -> None:
    kind = LogKind.CERTIFICATE
    folder = signed_log(tmp_path / "bundle", (kind, 0, {}), (kind, 7, {}), (kind, 7, {}))
    assert found_in(folder) == [
        "log.jsonl:2: says that it is number 7",
        "log.jsonl:3: says that it is number 7",
    ]


def test_nothing_outside_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = signed_log(tmp_path / "bundle", (LogKind.QUESTION, 0, {"request": "../../secret"}))
    assert found_in(folder) == ["question s: '../../secret' is no SHA-256 in hex"]
    (folder / "log.jsonl").unlink()
    os.mkfifo(folder / "log.jsonl")  # to read it would wait for ever
    assert found_in(folder) == ["log.jsonl: log.jsonl: is no plain file"]


def test_the_commands(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "coordinator.toml"
    config.write_text(f'net = "digits"\nstate = "{state}"\n')
    command = Command(capsys)
    verified = command.json("net", "verify", "-c", config)
    assert (verified["ok"], verified["version"], verified["problems"]) == (True, 2, [])
    with open_context(state) as context:
        key = load(StatePaths(context.config).key).public_key.hex()
    folder = tmp_path / "bundle"
    assert command.json("net", "bundle", folder, "-c", config)["key"] == key
    answer = command.json("net", "verify", "--offline", folder, "--key", key)
    assert (answer["ok"], answer["problems"]) == (True, [])
    assert "compare it with" in command.text("net", "verify", "--offline", folder)
    path = folder / "log.jsonl"
    path.write_bytes(path.read_bytes().replace(b"wrong labels", b"wrong Labels"))
    answer = command.json("net", "verify", "--offline", folder)
    assert not answer["ok"]
    assert command.exit_code == 1
    assert answer["problems"][0]["where"].startswith("log.jsonl:")
