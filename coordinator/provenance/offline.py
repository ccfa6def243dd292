"""``net verify --offline``: checks a bundle with no coordinator, no database and no network.

Every file is either authenticated by the signed head, or made anew from what is; what is missing,
changed, or there without reason is named. See `bundle` for what lies where. Weights are not in it:
their digests are.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.common.errors import IntegrityError, NotFoundError, RootstockError, SchemaError
from rootstock.common.files import read_capped
from rootstock.common.identity.keys import PUBLIC_KEY_BYTES, key_id
from rootstock.common.nets.graph import NetTree, VersionCommit
from rootstock.common.nets.tree_documents import TreeRoot, TreeShard, assembled
from rootstock.common.provenance.envelope import Envelope
from rootstock.common.provenance.log import LogEntry, LogHead, LogKind, opened_head
from rootstock.common.provenance.merkle import HASH_BYTES, Tree, leaf_hash
from rootstock.common.provenance.statements import verify_version_commit
from rootstock.common.weights.manifest import parse_manifest
from rootstock.coordinator.net.verify import Problem
from rootstock.coordinator.provenance.bundle import (
    ENVELOPES,
    HEAD,
    KEY,
    LEAVES,
    LOG,
    OBJECTS,
    manifest_envelope,
    signer,
    signers,
    version_envelope,
)

_MAX_LOG_BYTES = 1 << 30
_MAX_FILE_BYTES = 16 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_SIGNED = "the log is what the coordinator signed"
_OBJECT = "every document is what the log says"
_ENVELOPE = "every envelope says what the log says"
_VERSION = "every version is signed, and made of what was received"


def verify_bundle(folder: Path, known_key: str | None = None) -> tuple[LogHead, list[Problem]]:
    """Check a bundle; return its head, and nothing more if all is well.

    `known_key` is the coordinator's key in hex as one knows it from elsewhere. RefusedError if key
    and head are not there to begin with, or do not fit together.
    """
    coordinator = _key(folder, known_key)
    data = _read(folder / HEAD)
    head = opened_head(data, coordinator, what=HEAD)
    if Envelope.parse(data, what=HEAD).canonical() != data:
        raise IntegrityError(f"{HEAD}: is not in its canonical form; it was changed")
    return head, _Bundle(folder, coordinator, head).run()


class _Bundle:
    """Checks what lies in a folder, and collects what is wrong."""

    def __init__(self, folder: Path, coordinator: bytes, head: LogHead) -> None:
        self._folder, self._coordinator, self._head = folder, coordinator, head
        self._problems: list[Problem] = []
        self._expected = {KEY, HEAD, LEAVES, LOG}
        self._shipped: dict[str, set[str]] = {}
        """Blobs of each received manifest, by its digest."""

    def run(self) -> list[Problem]:
        entries = self._entries()
        if not self._problems:  # else nothing that follows has a ground to stand on
            self._check_documents(entries)
            self._check_versions(entries)
            self._check_folder()
        return self._problems

    @contextmanager
    def _reported(self, where: str, rule: str) -> Iterator[None]:
        try:
            yield
        except RootstockError as error:
            self._report(str(error), where, rule)
        except (LookupError, TypeError, ValueError) as error:  # signed facts may be odd, too
            self._report(f"the entry lacks what it is to say ({error!r})", where, rule)

    def _report(self, what: str, where: str, rule: str) -> None:
        problem = Problem(what=what, where=where, rule=rule)
        if problem not in self._problems:
            self._problems.append(problem)

    def _entries(self) -> list[LogEntry]:
        """Read the log, each entry against its leaf, and the leaves against the head."""
        entries: list[LogEntry] = []
        leaves: list[bytes] = []
        with self._reported(LEAVES, _SIGNED):
            leaves, tree = _leaves(self._folder, self._head.size), Tree()
            for leaf in leaves:
                tree.append(leaf)
            if (tree.size, tree.root().hex()) != (self._head.size, self._head.root):
                raise IntegrityError("its hashes are not those of the head")
        with self._reported(LOG, _SIGNED):
            lines = _lines(self._folder / LOG, _MAX_LOG_BYTES, len(leaves))
            for number, (line, leaf) in enumerate(zip(lines, leaves, strict=False), start=1):
                if leaf_hash(line) != leaf:
                    self._report("is not the entry that was signed", f"{LOG}:{number}", _SIGNED)
                else:
                    entry = LogEntry.parse(line, what="entry of the log")
                    if entry.index != number - 1:
                        what = f"says that it is number {entry.index}"
                        self._report(what, f"{LOG}:{number}", _SIGNED)
                    entries.append(entry)
        return entries

    def _check_documents(self, entries: list[LogEntry]) -> None:
        """Check manifests with who signed them, questions and reports."""
        keys: dict[int, list[bytes]] = {}
        with self._reported(LOG, _OBJECT):
            keys = signers(entries)
        net = key_id(self._coordinator)
        for entry in entries:
            where = f"{entry.kind} {entry.subject}"
            if entry.kind is LogKind.RECEIVED:
                with self._reported(where, _OBJECT):
                    document = self._object(entry.facts["manifest"])
                    key = signer(keys[entry.index], entry, document, net)
                    self._check_envelope(manifest_envelope(entry, document, net, key))
                    blobs = {blob.digest for blob in parse_manifest(document).blobs()}
                    self._shipped[entry.facts["manifest"]] = blobs
            elif entry.kind in (LogKind.QUESTION, LogKind.REPORT):
                name = "request" if entry.kind is LogKind.QUESTION else "report"
                with self._reported(where, _OBJECT):
                    self._object(entry.facts[name])

    def _check_versions(self, entries: list[LogEntry]) -> None:
        commits: dict[int, str] = {}
        standing: dict[int, str] = {}
        for entry in entries:
            where = f"version {entry.subject}"
            with self._reported(where, _VERSION):
                if entry.kind is LogKind.VERSION:
                    number = int(entry.subject)
                    self._check_version(number, entry, commits)
                    standing[number] = commits[number] = entry.facts["commit"]
                    if entry.facts["rolled_back"]:
                        del standing[number]
                elif entry.kind is LogKind.HEAD:
                    said = entry.facts["version"], entry.facts["commit"]
                    newest = max(standing, default=None)
                    if said != (newest, standing.get(newest) if newest else None):
                        what = (
                            f"entry {entry.index} says that the head is {said[0]}, it is {newest}"
                        )
                        self._report(what, "head", _VERSION)

    def _check_version(self, number: int, entry: LogEntry, commits: dict[int, str]) -> None:
        commit = VersionCommit.parse(self._object(entry.facts["commit"]), what="commit")
        verify_version_commit(self._coordinator, commit)
        self._check_envelope(version_envelope(commit, self._coordinator))
        parent = entry.facts["parent"]
        said = commit.number, commit.tree, commit.parent
        if said != (number, entry.facts["tree"], commits.get(parent) if parent else None):
            raise IntegrityError(f"the commit says {said}, the log says otherwise")
        root = TreeRoot.parse(self._object(commit.tree), what="tree")
        tree = assembled(
            root, lambda digest: TreeShard.parse(self._object(digest), what="shard of a tree")
        )
        self._check_modules(tree)

    def _check_modules(self, tree: NetTree) -> None:
        for name, ref in (*tree.category_modules.items(), *tree.task_modules.items()):
            if ref.blob.digest not in self._shipped.get(ref.submission, ()):
                raise IntegrityError(
                    f"module '{name}' ({ref.blob.digest}) is in no manifest that was received"
                )

    def _check_envelope(self, expected: tuple[str, Envelope] | None) -> None:
        if expected is None:
            return
        if _FILE_NAME.fullmatch(expected[0]) is None:
            raise SchemaError(f"{expected[0]!r} is no name of an envelope")
        name = f"{ENVELOPES}/{expected[0]}"
        self._expected.add(name)
        with self._reported(name, _ENVELOPE):
            if _read(self._folder / name) != expected[1].canonical():
                raise IntegrityError("is not the envelope of what was signed")

    def _object(self, digest: str) -> bytes:
        if _DIGEST.fullmatch(digest) is None:
            raise SchemaError(f"{digest!r} is no SHA-256 in hex")
        name = f"{OBJECTS}/{digest}"
        self._expected.add(name)
        data = _read(self._folder / name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityError(f"{name}: does not match its digest")
        return data

    def _check_folder(self) -> None:
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if name not in self._expected | {OBJECTS, ENVELOPES}:
                self._report("nothing in the log accounts for it", name, _OBJECT)


def _key(folder: Path, known: str | None) -> bytes:
    data = _read(folder / KEY)
    key = _bytes(data, KEY)
    if len(key) != PUBLIC_KEY_BYTES:
        raise SchemaError(f"{KEY}: holds no Ed25519 key in hex")
    if known is not None and known.strip().lower() != data.decode():
        raise IntegrityError(
            f"{KEY}: is key {data.decode()}, the coordinator's is {known.strip()}; this is another "
            "net's history, or a forged one"
        )
    return key


def _leaves(folder: Path, count: int) -> list[bytes]:
    limit = min((2 * HASH_BYTES + 1) * count, _MAX_LOG_BYTES)
    return [_bytes(line, LEAVES) for line in _lines(folder / LEAVES, limit, count)]


def _lines(path: Path, limit: int, count: int) -> list[bytes]:
    data = _read(path, limit)
    if (lines := data.count(b"\n")) != count:
        raise SchemaError(f"has {lines} lines, {count} were signed")
    *found, rest = data.split(b"\n")
    if rest:
        raise SchemaError("its last line has no end")
    return found


def _bytes(text: bytes, name: str) -> bytes:
    """Read lower-case hex, the only form that is written."""
    try:
        data = bytes.fromhex(text.decode("ascii"))
    except ValueError as error:
        raise SchemaError(f"{name}: holds what is no hex: {error}") from error
    if data.hex().encode() != text:
        raise SchemaError(f"{name}: holds hex that is not canonical; it was changed")
    return data


def _read(path: Path, limit: int = _MAX_FILE_BYTES) -> bytes:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise SchemaError(f"{path.name}: is no plain file")
        return read_capped(path, limit, what="part of a bundle")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFoundError(f"{path.name}: is not there") from error
