"""The store on S3 or anything that speaks it: ``<prefix>/blobs/ab/abcd…``, ``<prefix>/refs/…``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.artifacts.s3_client import (
    absent,
    connect,
    create_bytes,
    create_file,
    s3_errors,
)
from rootstock.common.artifacts.store import check_digest, check_ref, no_blob
from rootstock.common.errors import IntegrityError, LimitError, NotFoundError, StorageError
from rootstock.common.files import READ_BYTES, aside, file_digest


class S3Store:
    """A `BlobStore` in a bucket, with verified local copies in a cache folder.

    Objects are created only if they are not there (If-None-Match), so that of two writers none
    overwrites the other. S3's own checksum of a multipart object is not the SHA-256 of its
    bytes, so objects are named by ours and proved after each download.

    Parameters
    ----------
    bucket, prefix
        Where the objects go.
    cache
        Folder for local copies.
    endpoint
        URL of a server other than Amazon's; None takes AWS_ENDPOINT_URL or Amazon's.
    """

    def __init__(
        self, bucket: str, prefix: str, cache: Path, *, endpoint: str | None = None
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._cache = LocalStore(cache)
        self._cache_folder = cache
        self._where = f"s3://{bucket}/{self._prefix}"
        with self._errors():
            self._client: Any = connect(endpoint)

    def has(self, digest: str) -> bool:
        """See `BlobStore.has`."""
        return self._head(digest) is not None

    def size(self, digest: str) -> int:
        """See `BlobStore.size`."""
        size = self._head(digest)
        if size is None:
            raise no_blob(digest, self._where)
        return size

    def put_file(
        self, path: Path, digest: str, *, verified: bool = False, move: bool = False
    ) -> None:
        """See `BlobStore.put_file`."""
        if not self.has(digest):
            if not path.is_file():
                raise NotFoundError(f"{path}: there is no such file to store as {digest}")
            if not verified and (found := file_digest(path)) != digest:
                raise IntegrityError(
                    f"{path}: has SHA-256 {found}, was to be stored as {digest}; send it again"
                )
            with self._errors():
                create_file(self._client, self._bucket, self._blob(digest), path)
        if move:
            path.unlink(missing_ok=True)

    def put_bytes(self, data: bytes) -> str:
        """See `BlobStore.put_bytes`."""
        digest = hashlib.sha256(data).hexdigest()
        with self._errors():
            create_bytes(self._client, self._bucket, self._blob(digest), data)
        return digest

    def read_bytes(self, digest: str, limit: int) -> bytes:
        """See `BlobStore.read_bytes`."""
        data = self._get(self._blob(digest), limit + 1)
        if data is None:
            raise no_blob(digest, self._where)
        if len(data) > limit:
            raise LimitError(f"blob {digest} has more than {limit} bytes: it is no document")
        self._require(hashlib.sha256(data).hexdigest(), digest)
        return data

    def local_path(self, digest: str) -> Path:
        """See `BlobStore.local_path`: a verified copy in the cache, fetched if need be."""
        if not self._cache.has(digest):
            self._fetch(digest)
        return self._cache.local_path(digest)

    def delete(self, digest: str) -> None:
        """See `BlobStore.delete`: the object, and the copy in the cache."""
        with self._errors():
            self._client.delete_object(Bucket=self._bucket, Key=self._blob(digest))
        self._cache.delete(digest)

    def digests(self) -> Iterator[str]:
        """See `BlobStore.digests`."""
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}blobs/"
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield item["Key"].rpartition("/")[2]

    def put_ref(self, name: str, digest: str) -> None:
        """See `BlobStore.put_ref`."""
        data = check_digest(digest).encode()
        with self._errors():
            self._client.put_object(Bucket=self._bucket, Key=self._ref(name), Body=data)

    def get_ref(self, name: str) -> str | None:
        """See `BlobStore.get_ref`."""
        data = self._get(self._ref(name), 65)
        return None if data is None else check_digest(data.decode("ascii", "replace"))

    def delete_ref(self, name: str) -> None:
        """See `BlobStore.delete_ref`."""
        with self._errors():
            self._client.delete_object(Bucket=self._bucket, Key=self._ref(name))

    def _blob(self, digest: str) -> str:
        return f"{self._prefix}blobs/{check_digest(digest)[:2]}/{digest}"

    def _ref(self, name: str) -> str:
        return f"{self._prefix}refs/{check_ref(name)}"

    def _head(self, digest: str) -> int | None:
        with self._errors():
            try:
                head = self._client.head_object(Bucket=self._bucket, Key=self._blob(digest))
            except Exception as error:
                if not absent(error):
                    raise
                # A missing bucket gives the same bare 404 as a missing object: this tells.
                self._client.head_bucket(Bucket=self._bucket)
                return None
            return int(head["ContentLength"])

    def _open(self, key: str) -> Any:
        """Return an object's body, or None if there is no such object."""
        try:
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        except Exception as error:
            if not absent(error):
                raise
            return None

    def _get(self, key: str, limit: int) -> bytes | None:
        with self._errors():
            body = self._open(key)
            if body is None:
                return None
            with body:
                data: bytes = body.read(limit)
                return data

    def _fetch(self, digest: str) -> None:
        with self._errors():
            body = self._open(self._blob(digest))
            if body is None:
                raise no_blob(digest, self._where)
            found = hashlib.sha256()
            with body, aside(self._cache_folder / digest) as (temporary, file):
                for data in body.iter_chunks(READ_BYTES):
                    found.update(data)
                    file.write(data)
                file.flush()
                self._require(found.hexdigest(), digest)
                self._cache.put_file(temporary, digest, verified=True, move=True)

    def _require(self, found: str, digest: str) -> None:
        if found != digest:
            raise StorageError(
                f"{self._where}: blob {digest} came back with SHA-256 {found}; the store lost or "
                "changed its bytes: restore the object from a backup or an older version"
            )

    def _errors(self) -> AbstractContextManager[None]:
        return s3_errors(self._where)
