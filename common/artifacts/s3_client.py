"""S3 as the store needs it: settings, objects that are created but never replaced, our errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rootstock.common.errors import MissingExtraError, StorageError, UnreachableError

try:
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionClosedError,
        ConnectTimeoutError,
        EndpointConnectionError,
        HTTPClientError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
        ReadTimeoutError,
    )
except ImportError as _missing:
    raise MissingExtraError(
        "a store on S3 needs boto3: pip install 'rootstock-federation[coordinator]'"
    ) from _missing

PART_BYTES = 32 << 20
"""Memory of an upload, and of a multipart object's part: 320 GB in S3's 10,000 parts."""

COPY_BYTES = 1 << 30
"""Larger objects are copied in parts; the server does it, and no byte travels."""

_UNREACHABLE = (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
_UNCONFIGURED = (NoCredentialsError, NoRegionError, PartialCredentialsError)
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_EXISTS = {"412", "PreconditionFailed"}
_RACED = {"409", "ConditionalRequestConflict"}


def connect(endpoint: str | None) -> Any:
    """Return a boto3 client; credentials and region come from the usual variables and files."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            # Compatible servers refuse the CRC-32 trailers of newer boto3.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            read_timeout=60,
        ),
    )


def create_bytes(client: Any, bucket: str, key: str, data: bytes) -> bool:
    """Create an object; False if there is one, which stays: its name says what its bytes are."""
    try:
        client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except ClientError as error:
        if _code(error) not in _EXISTS:
            raise
        return False
    return True


def create_file(client: Any, bucket: str, key: str, path: Path) -> None:
    """Create an object from a file, in parts if it is large, in constant memory.

    boto3's own managed upload cannot say If-None-Match.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= PART_BYTES:
            create_bytes(client, bucket, key, file.read())
            return
        target = {"Bucket": bucket, "Key": key}
        upload = {**target, "UploadId": client.create_multipart_upload(**target)["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            while data := file.read(PART_BYTES):
                number = len(parts) + 1
                tag = client.upload_part(**upload, PartNumber=number, Body=data)["ETag"]
                parts.append({"PartNumber": number, "ETag": tag})
            client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            )
        except BaseException as error:
            client.abort_multipart_upload(**upload)  # parts of a dead upload cost money
            if not (isinstance(error, ClientError) and _code(error) in _EXISTS):
                raise


def touch(client: Any, bucket: str, key: str) -> bool:
    """Give an object a new LastModified by copying it onto itself; False if there is none."""
    whole = TransferConfig(multipart_threshold=COPY_BYTES, multipart_chunksize=COPY_BYTES)
    try:
        client.copy(
            {"Bucket": bucket, "Key": key},
            bucket,
            key,
            ExtraArgs={"MetadataDirective": "REPLACE"},  # without a change S3 refuses the copy
            Config=whole,
        )
    except ClientError as error:
        if not absent(error):
            raise
        return False
    return True


def absent(error: Exception) -> bool:
    """Say whether a call failed because there is no such object."""
    return isinstance(error, ClientError) and _code(error) in _ABSENT


@contextmanager
def s3_errors(where: str) -> Iterator[None]:
    """Turn boto3's errors into ours, all of which waiting may mend: no merge is blamed."""
    try:
        yield
    except _UNCONFIGURED as error:
        raise StorageError(
            f"{where}: {error}; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_DEFAULT_REGION, or a profile"
        ) from error
    except _UNREACHABLE as error:
        raise UnreachableError(f"{where}: {error}; check AWS_ENDPOINT_URL") from error
    except ClientError as error:
        code = _code(error)
        if code in _ABSENT or code == "NoSuchBucket":
            raise StorageError(f"{where}: there is no such bucket; create it first") from error
        if code in _RACED:
            raise UnreachableError(
                f"{where}: another writer is at the same object; try again"
            ) from error
        raise StorageError(
            f"{where}: {error}; check the credentials and the bucket's policy"
        ) from error
    except BotoCoreError as error:
        raise StorageError(f"{where}: {error}; check the settings of boto3") from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
