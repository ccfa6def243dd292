"""Opens the store that an address names: a folder, a file:// URL or a bucket on S3."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import ConfigurationError


def open_store(uri: str, cache: Path, *, began: bool = False) -> BlobStore:
    """Open a store by its address: a folder, a file:// URL, or s3://bucket/prefix.

    S3's credentials, region and endpoint come from the usual AWS environment variables and files;
    `cache` is the folder for local copies of its blobs. `began`: the store is known to hold blobs,
    so that a folder without any is a disk that is not mounted.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise ConfigurationError(f"artifacts = {uri!r} names no bucket; use s3://bucket/prefix")
        # boto3 is an extra that a lab does not need.
        from rootstock.common.artifacts.s3 import S3Store

        return S3Store(parts.netloc, parts.path.strip("/"), cache)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return LocalStore(Path(parts.path), began=began)
    if "://" in uri:
        raise ConfigurationError(
            f"artifacts = {uri!r}: only a folder, file:// and s3://bucket/prefix are known"
        )
    return LocalStore(Path(uri), began=began)
