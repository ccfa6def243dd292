"""The gate of uploads: what a manifest alone says, checked before a byte of its blobs is taken.

The whole gate, blobs included, is `common.weights.admission.admit`, after the receipt.
"""

from __future__ import annotations

from functools import lru_cache

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import IdentityError, NotFoundError, SchemaError
from rootstock.common.protocol import Heads, Plan
from rootstock.common.provenance.statements import verify_manifest
from rootstock.common.weights.admission import admit_manifest
from rootstock.common.weights.manifest import BlobEntry, Manifest, TeacherManifest, parse_manifest
from rootstock.coordinator.registry import Registry
from rootstock.protos.rootstock.federation.v1.federation_pb2 import BeginUploadRequest


@lru_cache(maxsize=64)  # manifests of at most 256 KiB
def blob_entries(document: bytes) -> dict[str, BlobEntry]:
    """Return a manifest's blobs by digest, each once, in its order."""
    entries: dict[str, BlobEntry] = {}
    for entry in parse_manifest(document).blobs():
        if (size := entries.setdefault(entry.digest, entry).size) != entry.size:
            raise SchemaError(
                f"blob {entry.digest} is listed with {size} and with {entry.size} "
                "bytes; equal bytes have one size"
            )
    return entries


@lru_cache(maxsize=64)
def samples_of(document: bytes) -> str | None:
    """Return the digest of the samples that a manifest shares."""
    manifest = parse_manifest(document)
    shared = manifest.shared_samples if isinstance(manifest, TeacherManifest) else None
    return None if shared is None else shared.blob.digest


def own_manifest(registry: Registry, site: str, request: BeginUploadRequest, net: str) -> Manifest:
    """Read a manifest that the calling site has signed for this net; any other is refused.

    The signature comes first: nothing is parsed for whom it is not.
    """
    key = registry.sites.key_of(site) or b""
    verify_manifest(key, request.signature, request.manifest, net, what="the manifest")
    manifest = parse_manifest(request.manifest)
    if manifest.site != site:
        raise IdentityError(
            f"the manifest is of site '{manifest.site}', the call of '{site}'; a site ships "
            "its own nets only"
        )
    return manifest


def check_manifest(manifest: Manifest, plan: Plan, heads: Heads | None) -> None:
    """Refuse a manifest that cannot be admitted whatever its blobs hold.

    Of another plan, the initial weights would not do; below heads that are not published any more,
    a net would not fit as it claims to.
    """
    if isinstance(manifest, TeacherManifest):
        if manifest.plan != plan.content_digest():
            raise SchemaError(
                f"plan: the teacher was trained under plan {manifest.plan}, the coordinator's is "
                f"{plan.content_digest()}; fetch the plan again and train under it"
            )
        published = None if heads is None else heads.content_digest()
        if manifest.heads not in (None, published):
            raise SchemaError(
                f"heads: the teacher was trained below auxiliary heads {manifest.heads}, published "
                f"now are {published or 'none'}; fetch the plan again and train below those"
            )
    admit_manifest(manifest, plan)


def check_size(entry: BlobEntry, store: BlobStore) -> None:
    """Refuse a blob that the store has with another size."""
    try:
        size = store.size(entry.digest)
    except NotFoundError:
        return
    if size != entry.size:
        raise SchemaError(
            f"blob {entry.digest} has {size} bytes, the manifest says {entry.size}; describe "
            "the file that is sent"
        )
