"""The blobs that a manifest names, each once."""

from __future__ import annotations

from functools import lru_cache

from rootstock.common.errors import SchemaError
from rootstock.common.weights.manifest import BlobEntry, TeacherManifest, parse_manifest


@lru_cache(maxsize=64)  # manifests of at most 1 MiB
def blob_entries(document: bytes) -> dict[str, BlobEntry]:
    """Return a manifest's blobs by digest, in its order.

    Raises
    ------
    SchemaError
        If one digest is listed with two sizes.
    """
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
    """Return the digest of the samples that come with a manifest."""
    manifest = parse_manifest(document)
    shared = manifest.shared_samples if isinstance(manifest, TeacherManifest) else None
    return None if shared is None else shared.blob.digest


def blob_sizes(document: bytes) -> dict[str, int]:
    """Return size by digest of a manifest's blobs; see `blob_entries`."""
    return {digest: entry.size for digest, entry in blob_entries(document).items()}
