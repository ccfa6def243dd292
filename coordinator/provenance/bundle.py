"""Writes all of a net's history but its weights into a folder, which anybody can verify alone.

::

    coordinator.pub     the coordinator's Ed25519 key, in hex
    head.json           the signed head of the log: a DSSE envelope
    leaves.txt          the hash of each entry, in hex: with the head they tell which one changed
    log.jsonl           the entries, canonical JSON, one a line
    objects/SHA256      manifests, questions, reports, commits, trees and their shards
    envelopes/NAME      what sites and the coordinator signed, as DSSE envelopes for other tools

What an envelope holds is in the log and the objects, too; `offline` makes it anew and compares.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from rootstock.common.errors import ConflictError, IntegrityError
from rootstock.common.files import make_folder, storage_errors, write_bytes
from rootstock.common.identity.keys import SigningKey, key_id
from rootstock.common.nets.graph import VersionCommit
from rootstock.common.provenance.envelope import Envelope
from rootstock.common.provenance.log import LogEntry, LogKind
from rootstock.common.provenance.merkle import leaf_hash
from rootstock.common.provenance.statements import (
    manifest_statement,
    statement_envelope,
    verify_manifest,
    version_statement,
)
from rootstock.coordinator.net.objects import MAX_DOCUMENT_BYTES, read_commit, read_root
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.provenance.signed_log import SignedLog
from rootstock.coordinator.registry.entries import UPGRADE

KEY, HEAD, LEAVES, LOG = "coordinator.pub", "head.json", "leaves.txt", "log.jsonl"
OBJECTS, ENVELOPES = "objects", "envelopes"


def write_bundle(net: NetReader, key: SigningKey, folder: Path) -> int:
    """Write the history as of now into a new folder; return the number of entries of the log.

    ConflictError if the folder holds something. NotFoundError names what is no longer there:
    `net verify` says why.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConflictError(f"{folder}: holds something already; name a new folder")
    with net.registry.log.snapshot() as (rows, _):
        lines = [row.entry for row in rows]
    entries = [LogEntry.parse(line, what="entry of the log") for line in lines]
    head = SignedLog(net.registry.log, key, folder / HEAD).head(len(lines))
    with storage_errors(folder):
        for each in (folder / OBJECTS, folder / ENVELOPES):
            make_folder(each)
        write_bytes(folder / KEY, key.public_key.hex().encode())
        write_bytes(folder / LEAVES, b"".join(leaf_hash(x).hex().encode() + b"\n" for x in lines))
        write_bytes(folder / LOG, b"".join(line + b"\n" for line in lines))
        for digest, data in _objects(net, entries):
            write_bytes(folder / OBJECTS / digest, data)
        for name, envelope in _envelopes(net, key.public_key, entries):
            write_bytes(folder / ENVELOPES / name, envelope.canonical())
        write_bytes(folder / HEAD, head)
    return len(lines)


def signers(entries: Iterable[LogEntry]) -> dict[int, list[bytes]]:
    """Return the keys that a received manifest's site had by then, by the number of its entry."""
    entries = list(entries)
    keys: defaultdict[str, list[bytes]] = defaultdict(list)
    found = {}

    def learn(entry: LogEntry) -> None:
        if entry.kind in (LogKind.SITE, LogKind.FORMER_KEY):
            site = entry.subject.partition("/")[0]
            keys[site].append(bytes.fromhex(entry.facts["public_key"]))

    for entry in entries:
        if entry.by == UPGRADE:  # all at one moment, in no order
            learn(entry)
    for entry in entries:
        if entry.by != UPGRADE:
            learn(entry)
        if entry.kind is LogKind.RECEIVED:
            found[entry.index] = list(keys[entry.facts["site"]])
    return found


def signer(keys: list[bytes], entry: LogEntry, document: bytes, net: str) -> bytes:
    """Return which of a site's keys signed a received manifest; IntegrityError if none did."""
    signature, what = bytes.fromhex(entry.facts["signature"]), f"manifest {entry.subject}"
    old = entry.by == UPGRADE
    for key in reversed(keys):
        with suppress(IntegrityError):
            verify_manifest(key, signature, document, net, what=what, old=old)
            return key
    raise IntegrityError(f"the signature of {what} is by no key that {entry.facts['site']} had")


def manifest_envelope(
    entry: LogEntry, document: bytes, net: str, public_key: bytes
) -> tuple[str, Envelope] | None:
    """Return the envelope of a received manifest, and its name; older ones have none."""
    if entry.by == UPGRADE:
        return None
    signature = bytes.fromhex(entry.facts["signature"])
    statement = manifest_statement(document, net)
    return f"{entry.subject}.json", statement_envelope(statement, public_key, signature)


def version_envelope(commit: VersionCommit, public_key: bytes) -> tuple[str, Envelope] | None:
    """Return the envelope of a version's commit, and its name; older ones have none."""
    if commit.net is None:
        return None
    signature = bytes.fromhex(commit.signature)
    envelope = statement_envelope(version_statement(commit), public_key, signature)
    return f"version-{commit.number}.json", envelope


def _objects(net: NetReader, entries: list[LogEntry]) -> Iterator[tuple[str, bytes]]:
    registry, store = net.registry, net.store
    # A lab may have answered since the entries were read.
    named = {entry.facts.get(name) for entry in entries for name in ("request", "report")}
    for kind, subject in {(entry.kind, entry.subject): None for entry in entries}:
        match kind:
            case LogKind.RECEIVED:
                upload = registry.uploads.get(subject)
                yield upload.manifest_digest, upload.manifest
            case LogKind.QUESTION | LogKind.REPORT:
                for document in registry.evaluations.documents(subject):
                    digest = None if document is None else hashlib.sha256(document).hexdigest()
                    if document is not None and digest is not None and digest in named:
                        yield digest, document
            case LogKind.VERSION:
                version = registry.versions.get(int(subject))
                digests = [version.digest, version.tree]
                digests += read_root(store, version.tree).shards.values()
                for digest in digests:
                    yield digest, store.read_bytes(digest, MAX_DOCUMENT_BYTES)


def _envelopes(
    net: NetReader, coordinator: bytes, entries: list[LogEntry]
) -> Iterator[tuple[str, Envelope]]:
    keys, ours = signers(entries), key_id(coordinator)
    for entry in entries:
        found: tuple[str, Envelope] | None = None
        if entry.kind is LogKind.RECEIVED:
            document = net.registry.uploads.get(entry.subject).manifest
            key = signer(keys[entry.index], entry, document, ours)
            found = manifest_envelope(entry, document, ours, key)
        elif entry.kind is LogKind.VERSION:
            found = version_envelope(read_commit(net.store, entry.facts["commit"]), coordinator)
        if found is not None:
            yield found
