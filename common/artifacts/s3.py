"""The store on S3 or anything that speaks it: ``<prefix>/blobs/ab/abcd…``, ``<prefix>/refs/…``."""

from __future__ import annotations

import copy
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.artifacts.s3_client import (
    absent,
    connect,
    create_bytes,
    create_file,
    s3_errors,
    touch,
)
from rootstock.common.artifacts.store import (
    StoredBlob,
    check_digest,
    check_ref,
    no_blob,
    require_digest,
    require_file,
    require_small,
)
from rootstock.common.errors import StorageError
from rootstock.common.files import READ_BYTES, aside, file_digest, storage_errors

CACHE_SECONDS = 7 * 24 * 3600.0
"""A local copy that nothing has asked for in this time is deleted."""

TRIM_SECONDS = 3600.0
"""Between two looks for such copies."""

_CACHED = re.compile(r"[0-9a-f]{64}|\..*\.aside")
"""What copies are called, and what is written aside; all else in the folder is not the cache's."""

DISCARD_SECONDS = 60.0
"""How long a discard may take from its mark until it sends the deletion."""

MARK_SECONDS = 600.0
"""A discard's mark of this age was left by a process that has ended; boto3 retries for less."""


class S3Store:
    """A `BlobStore` in a bucket, with verified local copies in a cache folder.

    Objects are created only if they are not there (If-None-Match), so that of two writers none
    overwrites the other. S3's own checksum of a multipart object is not the SHA-256 of its
    bytes, so objects are named by ours and proved after each download.

    A blob's age is its object's LastModified. S3 cannot delete an object on the condition that it
    is old, so `discard` writes a mark before it looks at the age, and `renew` looks for the mark
    after it has made the object young: of the two at once, one sees the other.

    `endpoint` is the URL of a server other than Amazon's; None takes AWS_ENDPOINT_URL or Amazon's.
    """

    def __init__(
        self, bucket: str, prefix: str, cache: Path, *, endpoint: str | None = None
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._cache_folder = cache
        self._trimmed_at = 0.0
        self._where = f"s3://{bucket}/{self._prefix}"
        with self._errors():
            self._client: Any = connect(endpoint)

    def has(self, digest: str) -> bool:
        return self._head(self._blob(digest)) is not None

    def size(self, digest: str) -> int:
        found = self._head(self._blob(digest))
        if found is None:
            raise no_blob(digest, self._where)
        return int(found["ContentLength"])

    def put_file(
        self, path: Path, digest: str, *, verified: bool = False, move: bool = False
    ) -> None:
        if not self.renew(digest):
            require_file(path, digest)
            if not verified:
                require_digest(file_digest(path), digest, path)
            with self._errors():
                create_file(self._client, self._bucket, self._blob(digest), path)
        if move:
            path.unlink(missing_ok=True)

    def put_bytes(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        with self._errors():
            while not create_bytes(self._client, self._bucket, self._blob(digest), data):
                if self.renew(digest):  # else it was discarded since
                    break
        return digest

    def renew(self, digest: str) -> bool:
        key, mark = self._blob(digest), self._mark(digest)
        if self._head(key) is None:
            return False
        with self._errors():
            if not touch(self._client, self._bucket, key):
                return False
            while (found := self._head(mark)) is not None:
                if found["LastModified"].timestamp() < time.time() - MARK_SECONDS:
                    self._client.delete_object(Bucket=self._bucket, Key=mark)
                    break
                time.sleep(0.2)
        return self.has(digest)

    def read_bytes(self, digest: str, limit: int) -> bytes:
        data = self._get(self._blob(digest), limit + 1)
        if data is None:
            raise no_blob(digest, self._where)
        require_small(data, digest, limit)
        self._require(hashlib.sha256(data).hexdigest(), digest)
        return data

    def local_path(self, digest: str) -> Path:
        """Return a verified copy in the cache, fetched if need be."""
        if not self._cache.renew(digest):
            self._fetch(digest)
        return self._cache.local_path(digest)

    def delete(self, digest: str) -> None:
        """Delete the object, and the copy in the cache."""
        with self._errors():
            self._client.delete_object(Bucket=self._bucket, Key=self._blob(digest))
        self._cache.delete(digest)

    def discard(self, digest: str, before: float) -> bool:
        mark, begun = self._mark(digest), time.monotonic()
        with self._errors():
            self._client.put_object(Bucket=self._bucket, Key=mark, Body=b"")
            try:
                found = self._head(self._blob(digest))
                if found is None or found["LastModified"].timestamp() >= before:
                    return False
                if time.monotonic() - begun > DISCARD_SECONDS:
                    return False  # whoever renews it may no longer be waiting
                self.delete(digest)
            finally:
                self._client.delete_object(Bucket=self._bucket, Key=mark)
        return True

    def blobs(self) -> Iterator[StoredBlob]:
        for item in self._list("blobs/"):
            digest = item["Key"].rpartition("/")[2]
            yield StoredBlob(digest, int(item["Size"]), item["LastModified"].timestamp())

    def put_ref(self, name: str, digest: str) -> None:
        data = check_digest(digest).encode()
        with self._errors():
            self._client.put_object(Bucket=self._bucket, Key=self._ref(name), Body=data)

    def get_ref(self, name: str) -> str | None:
        data = self._get(self._ref(name), 65)
        return None if data is None else check_digest(data.decode("ascii", "replace"))

    def refs(self, under: str) -> Iterator[str]:
        for item in self._list(f"refs/{check_ref(under)}/"):
            yield item["Key"].removeprefix(f"{self._prefix}refs/")

    def area(self, name: str) -> S3Store:
        area = copy.copy(self)
        area._prefix = f"{self._prefix}{check_ref(name)}/"
        area._cache_folder = self._cache_folder / name
        area._where = f"{self._where}{name}/"
        return area

    def areas(self, under: str) -> Iterator[str]:
        start = f"{check_ref(under)}/"
        for item in self._list(start, "CommonPrefixes", Delimiter="/"):
            yield item["Prefix"].removeprefix(self._prefix + start).rstrip("/")

    def drop(self, area: str) -> None:
        """Delete the objects of an area, and their copies in the cache."""
        for item in list(self._list(f"{check_ref(area)}/")):
            with self._errors():
                self._client.delete_object(Bucket=self._bucket, Key=item["Key"])
        folder = self._cache_folder / area
        with storage_errors(folder), suppress(FileNotFoundError):
            shutil.rmtree(folder)

    def tidy(self, before: float) -> None:
        """Delete objects whose parts were never put together."""
        for item in self._list("", "Uploads", "list_multipart_uploads"):
            if item["Initiated"].timestamp() < before:
                with self._errors():
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=item["Key"], UploadId=item["UploadId"]
                    )

    @property
    def _cache(self) -> LocalStore:
        return LocalStore(self._cache_folder)

    def _list(
        self, start: str, part: str = "Contents", call: str = "list_objects_v2", **more: str
    ) -> Iterator[Any]:
        with self._errors():
            pages = self._client.get_paginator(call).paginate(
                Bucket=self._bucket, Prefix=self._prefix + start, **more
            )
            for page in pages:
                yield from page.get(part, ())

    def _blob(self, digest: str) -> str:
        return f"{self._prefix}blobs/{check_digest(digest)[:2]}/{digest}"

    def _ref(self, name: str) -> str:
        return f"{self._prefix}refs/{check_ref(name)}"

    def _mark(self, digest: str) -> str:
        return f"{self._prefix}discarding/{check_digest(digest)}"

    def _head(self, key: str) -> Any:
        with self._errors():
            found = self._found(self._client.head_object, key)
            if found is None:
                # A missing bucket gives the same bare 404 as a missing object: this tells.
                self._client.head_bucket(Bucket=self._bucket)
            return found

    def _found(self, call: Callable[..., Any], key: str) -> Any:
        try:
            return call(Bucket=self._bucket, Key=key)
        except Exception as error:
            if not absent(error):
                raise
            return None

    def _get(self, key: str, limit: int) -> bytes | None:
        with self._errors():
            found = self._found(self._client.get_object, key)
            if found is None:
                return None
            body = found["Body"]
            with body:  # not what it yields, which reads past boto3's errors
                data: bytes = body.read(limit)
                return data

    def _fetch(self, digest: str) -> None:
        self._trim()
        with self._errors():
            found = self._found(self._client.get_object, self._blob(digest))
            if found is None:
                raise no_blob(digest, self._where)
            sha, body = hashlib.sha256(), found["Body"]
            with body, aside(self._cache_folder / digest) as (temporary, file):
                for data in body.iter_chunks(READ_BYTES):
                    sha.update(data)
                    file.write(data)
                file.flush()
                self._require(sha.hexdigest(), digest)
                self._cache.put_file(temporary, digest, verified=True, move=True)

    def _trim(self) -> None:
        now = time.time()
        if now - self._trimmed_at < TRIM_SECONDS:
            return
        self._trimmed_at = now
        for path in self._cache_folder.rglob("*"):
            if _CACHED.fullmatch(path.name) is None:
                continue
            with storage_errors(path), suppress(FileNotFoundError):
                if path.is_file() and path.stat().st_mtime < now - CACHE_SECONDS:
                    path.unlink()

    def _require(self, found: str, digest: str) -> None:
        if found != digest:
            raise StorageError(
                f"{self._where}: blob {digest} came back with SHA-256 {found}; the store lost or "
                "changed its bytes: restore the object from a backup or an older version"
            )

    def _errors(self) -> AbstractContextManager[None]:
        return s3_errors(self._where)
