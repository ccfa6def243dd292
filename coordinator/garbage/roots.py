"""The roots of a collection: the blobs of the store that are needed, by what needs them."""

from __future__ import annotations

import json
import re

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import ConflictError
from rootstock.common.protocol import Heads, Plan
from rootstock.coordinator.net.objects import read_root, read_shard
from rootstock.coordinator.paths import SIGNATURES
from rootstock.coordinator.registry import OPEN_MERGES, Registry, SubmissionState, UploadReferences

_DIGEST = re.compile(rb"[0-9a-f]{64}")


def needed(
    registry: Registry, store: BlobStore, plan: Plan, heads: Heads | None
) -> dict[str, set[str]]:
    """Return the digests that must stay, by kind.

    `plan` and `heads`
        What labs download before they train.
    `net`
        Commits, trees, modules and adapters of every version, those rolled back included, and the
        manifests of the modules.
    `submissions`
        Manifests and signatures of all uploads; blobs of those that are open, and of teachers that
        were not refused.
    `merges`
        What open merges have learned, and ask labs about; refined adapters sent for them.

    Raises if the store belongs to another database, too, or a version's documents cannot be read:
    then nothing is known not to be needed.
    """
    uploads = registry.uploads.references()
    require_own(store, uploads)
    net = _net(registry, store)
    merges, opened = _merges(registry)
    submissions: set[str] = set()
    for upload in uploads:
        refined_for_open = upload.evaluation_id in opened
        if upload.evaluation_id is None or refined_for_open or upload.blobs & net:
            submissions |= {upload.manifest, upload.signature}
        if refined_for_open:
            merges |= upload.blobs
        elif upload.open or upload.state in (SubmissionState.RECEIVED, SubmissionState.ADMITTED):
            submissions |= upload.blobs
    return {
        "plan": {plan.content_digest(), *(entry.digest for entry in plan.blobs())},
        "heads": set() if heads is None else {entry.digest for entry in heads.blobs()},
        "net": net,
        "submissions": submissions,
        "merges": merges,
    }


def require_own(store: BlobStore, uploads: list[UploadReferences]) -> None:
    """Refuse a store with uploads that the database does not know: their blobs would look unneeded.

    Another net shares the store, then, or the database is older than the store.
    """
    known = {upload.manifest for upload in uploads}
    for name in store.refs(SIGNATURES):
        manifest = "".join(name.split("/")[1:])
        if manifest not in known:
            raise ConflictError(
                f"the store holds the upload of manifest {manifest}, which the database does not "
                "know, so nothing is collected: give each net artifacts of its own, and put back "
                "the newest backup of the database"
            )


def _net(registry: Registry, store: BlobStore) -> set[str]:
    """Return what net versions are made of; a shard that versions share is read once."""
    digests: set[str] = set()
    for version in registry.versions.all():
        digests |= {version.digest, version.tree}
        root = read_root(store, version.tree)
        for module in root.task_modules.values():
            digests |= {module.blob.digest, module.submission}
        for name in set(root.shards.values()) - digests:
            shard = read_shard(store, name)
            digests.add(name)
            for module in shard.category_modules.values():
                digests |= {module.blob.digest, module.submission}
            digests |= {e.adapter.blob.digest for e in shard.edges if e.adapter is not None}
    return digests


def _merges(registry: Registry) -> tuple[set[str], set[str]]:
    """Return what open merges name, and the ids of the evaluations that they have asked for."""
    digests: set[str] = set()
    merges = registry.merges.all(*OPEN_MERGES)
    for merge in merges:
        digests |= named_in(json.dumps(merge.job_result).encode())
    asked = registry.evaluations.of_merges(merge.id for merge in merges)
    for evaluation in asked:
        digests |= named_in(evaluation.request.canonical())
    return digests, {evaluation.id for evaluation in asked}


def named_in(document: bytes) -> set[str]:
    """Return everything in a document that looks like a digest: rather too much than too little."""
    return {digest.decode() for digest in _DIGEST.findall(document)}
