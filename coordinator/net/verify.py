"""``net verify``: a net version is complete, signed, and answers as it did when it grew."""

from __future__ import annotations

from contextlib import suppress

import torch

from rootstock.common.documents import Document
from rootstock.common.errors import IntegrityError, NotFoundError, RootstockError
from rootstock.common.files import file_digest
from rootstock.common.identity.keys import key_id
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.graph import NetTree, VersionCommit
from rootstock.common.provenance.log import LogKind
from rootstock.common.provenance.statements import verify_manifest, verify_version_commit
from rootstock.common.weights.manifest import TeacherManifest, parse_manifest
from rootstock.coordinator.net.fingerprint import agrees, outputs, written
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.registry import Registry
from rootstock.coordinator.registry.entries import UPGRADE

_TRACED = "every module traces to a signed submission"


class Problem(Document):
    """One thing that is wrong with a net version."""

    what: str
    where: str
    rule: str


def verify_version(
    view: NetReader, number: int, coordinator_key: bytes, *, probe: bool = True
) -> list[Problem]:
    """Check a net version and its line of parents; return nothing if all is well.

    Commits are signed with `coordinator_key`, 32 raw bytes. With `probe`, each join is composed
    twice: its outputs are compared with those of the version that added it, bit by bit, and with
    its merge's record. A broken blob is named and hides nothing else.
    """
    verification = _Verification(view, number, coordinator_key)
    verification.run(probe=probe)
    return verification.problems


class _Verification:
    """Checks a version and its parents, and collects what is wrong."""

    def __init__(self, view: NetReader, number: int, coordinator_key: bytes) -> None:
        self._view, self._number, self._key = view, number, coordinator_key
        self.problems: list[Problem] = []

    def run(self, *, probe: bool) -> None:
        newest: NetTree | None = None
        child: tuple[VersionCommit, NetTree] | None = None
        checked: set[str] = set()
        step: int | None = self._number
        while step is not None:
            where = f"v{step}"
            try:
                commit, tree = self._view.commit(step), self._view.tree(step)
                verify_version_commit(self._key, commit)
            except RootstockError as error:
                self._report("commit and tree are signed", where, str(error))
                return
            if child is not None:
                self._check_child(*child, commit, tree)
            self._check_merge(commit, tree)
            if probe:
                newest = newest or tree
                self._check_outputs(newest, commit, tree)
            for digest in sorted(tree.digests() - checked):
                self._check_blob(digest, f"{where} {digest}")
            for digest in sorted(tree.submissions() - checked):
                self._check_submission(tree, digest, where)
            checked |= tree.digests() | tree.submissions()
            child = commit, tree
            step = self._view.registry.versions.get(step).parent

    def _report(self, rule: str, where: str, what: str) -> None:
        self.problems.append(Problem(what=what, where=where, rule=rule))

    def _check_child(
        self, child: VersionCommit, grown: NetTree, commit: VersionCommit, tree: NetTree
    ) -> None:
        where, parent = f"v{child.number}", commit.content_digest()
        if child.parent != parent:
            rule = "a version's parent is the head of its day"
            what = f"{where} names parent {child.parent}, v{commit.number} is {parent}"
            self._report(rule, where, what)
        if lost := sorted(tree.digests() - grown.digests()):
            rule = "a child version holds every digest of its parent"
            self._report(rule, where, f"{where} lacks {', '.join(lost)}")
        rule = "a child version joins whatever its parent joins, in the same way"
        for edge in tree.edges:
            if edge not in grown.edges:
                what = f"{where} joins {edge.category} to {edge.task} in another way"
                self._report(rule, where, what)

    def _check_merge(self, commit: VersionCommit, tree: NetTree) -> None:
        """Compare the join that a merge added with the merge's record in the signed commit."""
        where, (category, task) = f"v{commit.number}", _join(commit)
        try:
            edge = tree.edge(category, task)
        except NotFoundError as error:
            self._report("a merge adds its join", where, str(error))
            return
        adapter = edge.adapter.blob.digest if edge.adapter is not None else None
        recorded = commit.merge.get("adapter")
        if adapter != recorded:
            self._report(
                "every adapter traces to a recorded merge",
                where,
                f"{category} is joined to {task} by {adapter}, the merge's record says {recorded}",
            )
        # Merges from before there were calibrations say nothing of one.
        keys = Calibration()
        scale, bias = (commit.merge.get(f"calibration_{key}", value) for key, value in keys)
        given = edge.calibration
        if (given.scale, given.bias) != (scale, bias):
            self._report(
                "every calibration traces to a recorded merge",
                where,
                f"{category} → {task} gives {given.scale:g} · y + {given.bias:g}, the merge's "
                f"record says {scale} · y + {bias}",
            )

    def _check_outputs(self, newest: NetTree, commit: VersionCommit, tree: NetTree) -> None:
        """Compare what a join answers today with what it did when a version added it."""
        category, task = _join(commit)
        join, where = f"{category} → {task}", f"v{commit.number}"
        try:
            then = outputs(tree, self._view.store, category, task)
            now = outputs(newest, self._view.store, category, task)
        except (NotFoundError, IntegrityError):  # a missing blob or join is reported elsewhere
            return
        except RootstockError as error:
            self._report("every join can be composed", where, f"{join}: {error}")
            return
        if not torch.equal(now, then):
            today = f"v{self._number}"
            rule = "outputs are the same in every later version, bit by bit"
            self._report(rule, today, f"{join} answers otherwise in {today} than in {where}")
        # Merges from before there were probes say nothing of them.
        record = commit.merge.get("probe", written(then))
        if not agrees(then, record):
            what = f"{join} answers {written(then)}, the merge's record says {record}"
            self._report("outputs are those of the recorded merge", where, what)

    def _check_blob(self, digest: str, where: str) -> None:
        try:
            actual = file_digest(self._view.store.local_path(digest))
        except (NotFoundError, IntegrityError) as error:
            self._report("every blob is reachable", where, str(error))
            return
        if actual != digest:
            what = f"blob {digest} has SHA-256 {actual}"
            self._report("every blob matches its digest", where, what)

    def _check_submission(self, tree: NetTree, digest: str, where: str) -> None:
        """Compare the modules that a tree says are a submission's with its signed manifest."""
        try:
            net = key_id(self._key)
            parsed = parse_manifest(_signed_manifest(self._view.registry, digest, net))
        except RootstockError as error:
            self._report(_TRACED, f"{where} {digest}", str(error))
            return
        shipped = set()
        if isinstance(parsed, TeacherManifest):
            shipped = {entry.digest for entry in parsed.blobs()}
        for ref in (*tree.category_modules.values(), *tree.task_modules.values()):
            blob = ref.blob.digest
            if ref.submission == digest and blob not in shipped:
                what = f"module {blob} is not in manifest {digest}"
                self._report(_TRACED, f"{where} {blob}", what)


def _join(commit: VersionCommit) -> tuple[str, str]:
    return str(commit.merge.get("category")), str(commit.merge.get("task"))


def _signed_manifest(registry: Registry, digest: str, net: str) -> bytes:
    """Return a submission's manifest, signed for the net by a key that its site has or had."""
    upload = registry.uploads.find(digest)
    if upload is None or upload.receipt is None:
        raise NotFoundError(f"no submission with manifest {digest} was received")
    entered = registry.log.last(LogKind.RECEIVED, upload.id)
    old = entered is not None and entered.by == UPGRADE

    def check(key: bytes) -> bytes:
        what = f"manifest {digest}"
        verify_manifest(key, upload.signature, upload.manifest, net, what=what, old=old)
        return upload.manifest

    present, *former = registry.sites.keys_of(upload.site)
    for key in former:
        with suppress(IntegrityError):
            return check(key)
    return check(present)
