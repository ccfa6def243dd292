"""``net verify``: a net version is whole, signed for, and answers as it always did."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.documents import Document
from rootstock.common.errors import IntegrityError, NotFoundError, RootstockError
from rootstock.common.files import file_digest
from rootstock.common.identity.keys import verify
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.graph import NetTree, VersionCommit
from rootstock.common.weights.manifest import TeacherManifest, parse_manifest
from rootstock.coordinator.net.fingerprint import agrees, outputs, written
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.registry import Registry


class Problem(Document):
    """One thing that is wrong with a net version."""

    what: str
    where: str
    rule: str


def verify_version(
    view: NetReader, number: int, coordinator_key: bytes, *, probe: bool = True
) -> list[Problem]:
    """Check a net version and its line of parents (DESIGN.md section 5, invariants 3 and 4).

    Parameters
    ----------
    view
        The nets of one coordinator.
    number
        Which version.
    coordinator_key
        Public key, 32 raw bytes, that signs commits.
    probe
        Whether to compose each join and hold its outputs against those of the version that
        added it, bit by bit, and against its merge's record: takes two passes a join.

    Returns
    -------
    list of Problem
        Empty when the version is whole; a broken blob is named and hides nothing else.
    """
    return list(_problems(view, number, coordinator_key, probe=probe))


def _problems(
    view: NetReader, number: int, coordinator_key: bytes, *, probe: bool
) -> Iterator[Problem]:
    newest: NetTree | None = None
    child: tuple[VersionCommit, NetTree] | None = None
    checked: set[str] = set()
    step: int | None = number
    while step is not None:
        try:
            commit, tree = view.commit(step), view.tree(step)
            verify(
                coordinator_key,
                bytes.fromhex(commit.signature),
                commit.signed_bytes(),
                what=f"the commit of version {step}",
            )
        except RootstockError as error:
            yield Problem(what=str(error), where=f"v{step}", rule="commit and tree are signed")
            return
        if child is not None:
            yield from _check_child(*child, commit, tree)
        yield from _check_merge(commit, tree)
        if probe:
            newest = newest or tree
            yield from _check_outputs(view.store, newest, number, commit, tree)
        for digest in sorted(tree.digests() - checked):
            yield from _check_blob(view.store, digest, step)
        for digest in sorted(tree.submissions() - checked):
            yield from _check_submission(view.registry, tree, digest, step)
        checked |= tree.digests() | tree.submissions()
        child = commit, tree
        step = view.registry.versions.get(step).parent


def _check_child(
    child: VersionCommit, grown: NetTree, commit: VersionCommit, tree: NetTree
) -> Iterator[Problem]:
    """Hold a version against the parent that it grew from."""
    where = f"v{child.number}"
    if child.parent != commit.content_digest():
        yield Problem(
            what=f"{where} names parent {child.parent}, v{commit.number} is "
            f"{commit.content_digest()}",
            where=where,
            rule="a version's parent is the head of its day",
        )
    if not tree.digests() <= grown.digests():
        lost = ", ".join(sorted(tree.digests() - grown.digests()))
        yield Problem(
            what=f"{where} lacks {lost}",
            where=where,
            rule="a child version holds every digest of its parent",
        )
    for edge in tree.edges:
        if edge not in grown.edges:
            yield Problem(
                what=f"{where} joins {edge.category} to {edge.task} in another way",
                where=where,
                rule="a child version joins whatever its parent joins, in the same way",
            )


def _check_merge(commit: VersionCommit, tree: NetTree) -> Iterator[Problem]:
    """Hold the join that a merge added against the merge's record in the signed commit."""
    category, task = (str(commit.merge.get(key)) for key in ("category", "task"))
    try:
        edge = tree.edge(category, task)
    except NotFoundError as error:
        yield Problem(what=str(error), where=f"v{commit.number}", rule="a merge adds its join")
        return
    found = edge.adapter.blob.digest if edge.adapter is not None else None
    if found != commit.merge.get("adapter"):
        yield Problem(
            what=f"{category} is joined to {task} by {found}, the merge's record says "
            f"{commit.merge.get('adapter')}",
            where=f"v{commit.number}",
            rule="every adapter traces to a recorded merge",
        )
    # Merges from before there were calibrations say nothing of one.
    scale, bias = (commit.merge.get(f"calibration_{key}", value) for key, value in Calibration())
    if (edge.calibration.scale, edge.calibration.bias) != (scale, bias):
        yield Problem(
            what=f"{category} → {task} gives {edge.calibration.scale:g} · y + "
            f"{edge.calibration.bias:g}, the merge's record says {scale} · y + {bias}",
            where=f"v{commit.number}",
            rule="every calibration traces to a recorded merge",
        )


def _check_outputs(
    store: BlobStore, newest: NetTree, number: int, commit: VersionCommit, tree: NetTree
) -> Iterator[Problem]:
    """Hold what a join answers today against the day when a version added it."""
    category, task = (str(commit.merge.get(key)) for key in ("category", "task"))
    try:
        then = outputs(tree, store, category, task)
        now = outputs(newest, store, category, task)
    except (NotFoundError, IntegrityError):  # a blob or a join that is not there: said elsewhere
        return
    except RootstockError as error:
        yield Problem(
            what=f"{category} → {task}: {error}",
            where=f"v{commit.number}",
            rule="every join can be composed",
        )
        return
    if not torch.equal(now, then):
        yield Problem(
            what=f"{category} → {task} answers otherwise in v{number} than in v{commit.number}",
            where=f"v{number}",
            rule="outputs are the same in every later version, bit by bit",
        )
    # Merges from before there were probes say nothing of them.
    record = commit.merge.get("probe", written(then))
    if not agrees(then, record):
        yield Problem(
            what=f"{category} → {task} answers {written(then)}, the merge's record says {record}",
            where=f"v{commit.number}",
            rule="outputs are those of the recorded merge",
        )


def _check_blob(store: BlobStore, digest: str, number: int) -> Iterator[Problem]:
    try:
        found = file_digest(store.local_path(digest))
    except (NotFoundError, IntegrityError) as error:
        yield Problem(what=str(error), where=f"v{number} {digest}", rule="every blob is reachable")
        return
    if found != digest:
        yield Problem(
            what=f"blob {digest} has SHA-256 {found}",
            where=f"v{number} {digest}",
            rule="every blob matches its digest",
        )


def _check_submission(
    registry: Registry, tree: NetTree, digest: str, number: int
) -> Iterator[Problem]:
    try:
        manifest, signature, key = signed_manifest(registry, digest)
        verify(key, signature, manifest, what=f"manifest {digest}")
        parsed = parse_manifest(manifest)
    except RootstockError as error:
        yield Problem(
            what=str(error),
            where=f"v{number} {digest}",
            rule="every module traces to a signed submission",
        )
        return
    yield from _check_origin(tree, parsed, digest, number)


def _check_origin(tree: NetTree, manifest: object, digest: str, number: int) -> Iterator[Problem]:
    """Hold the modules that a tree says came with a submission against its manifest."""
    shipped = (
        {entry.digest for entry in manifest.blobs()}
        if isinstance(manifest, TeacherManifest)
        else set()
    )
    for ref in (*tree.category_modules.values(), *tree.task_modules.values()):
        if ref.submission == digest and ref.blob.digest not in shipped:
            yield Problem(
                what=f"module {ref.blob.digest} is not in manifest {digest}",
                where=f"v{number} {ref.blob.digest}",
                rule="every module traces to a signed submission",
            )


def signed_manifest(registry: Registry, digest: str) -> tuple[bytes, bytes, bytes]:
    """Return a submission's manifest, its signature, and the public key of its site.

    Raises
    ------
    NotFoundError
        If no such submission was received, or its site is not known.
    """
    upload = registry.uploads.find(digest)
    if upload is None or upload.receipt is None:
        raise NotFoundError(f"no submission with manifest {digest} was received")
    key = registry.sites.key_of(upload.site)
    if key is None:
        raise NotFoundError(f"site '{upload.site}' of manifest {digest} is not known")
    return upload.manifest, upload.signature, key
