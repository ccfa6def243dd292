import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import pytest

from rootstock.common.artifacts.s3 import S3Store
from rootstock.common.artifacts.s3_client import PART_BYTES
from rootstock.common.artifacts.uri import open_store
from rootstock.common.errors import StorageError, UnreachableError
from rootstock.common.files import file_digest


def test_large_files_go_in_parts(bucket: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(PART_BYTES) + b"tail")
    digest = file_digest(path)
    store = S3Store(bucket, "", tmp_path / "cache")
    store.put_file(path, digest)
    tag = boto3.client("s3").head_object(Bucket=bucket, Key=f"blobs/{digest[:2]}/{digest}")["ETag"]
    assert tag.endswith('-2"')
    assert store.size(digest) == PART_BYTES + 4
    assert store.local_path(digest).stat().st_size == PART_BYTES + 4


def test_an_object_that_is_there_is_never_replaced(bucket: str, tmp_path: Path) -> None:
    store = S3Store(bucket, "", tmp_path / "cache")
    digest = hashlib.sha256(b"tree").hexdigest()
    key = f"blobs/{digest[:2]}/{digest}"
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"first")
    assert digest == store.put_bytes(b"tree")
    assert boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read() == b"first"


def test_bytes_that_the_store_changed_are_not_handed_out(bucket: str, tmp_path: Path) -> None:
    store = S3Store(bucket, "", tmp_path / "cache")
    digest = store.put_bytes(b"tree")
    assert store.read_bytes(digest, 10) == b"tree"
    boto3.client("s3").put_object(Bucket=bucket, Key=f"blobs/{digest[:2]}/{digest}", Body=b"free")
    with pytest.raises(StorageError, match="lost or changed"):
        store.read_bytes(digest, 10)
    with pytest.raises(StorageError, match="lost or changed"):
        store.local_path(digest)
    assert not list((tmp_path / "cache").glob("**/*" + digest + "*"))


def test_the_cache_answers_without_the_server(bucket: str, tmp_path: Path) -> None:
    digest = S3Store(bucket, "p", tmp_path / "cache").put_bytes(b"tree")
    path = S3Store(bucket, "p", tmp_path / "cache").local_path(digest)
    deaf = S3Store(bucket, "p", tmp_path / "cache", endpoint="http://127.0.0.1:9")
    assert path == deaf.local_path(digest)


def test_a_server_that_does_not_answer_is_named(bucket: str, tmp_path: Path) -> None:
    store = S3Store(bucket, "p", tmp_path / "cache", endpoint="http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9.*AWS_ENDPOINT_URL"):
        store.get_ref("head")


def test_a_missing_bucket_is_named(bucket: str, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket-here/p", tmp_path / "cache")
    for call in (lambda: store.put_bytes(b"x"), lambda: store.has("0" * 64)):
        with pytest.raises(StorageError, match="no such bucket; create it"):
            call()


def test_prefixes_keep_nets_apart(bucket: str, tmp_path: Path) -> None:
    one = open_store(f"s3://{bucket}/one", tmp_path / "cache1")
    two = open_store(f"s3://{bucket}/two/", tmp_path / "cache2")
    digest = one.put_bytes(b"x")
    assert one.has(digest)
    assert not two.has(digest)


def test_without_boto3_the_remedy_is_named(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["boto3"] = None  # what an import of a package that is not installed does
from pathlib import Path
from rootstock.common.artifacts.uri import open_store
from rootstock.common.errors import MissingExtraError
open_store("folder", Path("cache"))
try:
    open_store("s3://bucket/p", Path("cache"))
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'rootstock-federation[coordinator]'" in done.stdout


def test_copies_that_nothing_asks_for_leave_the_cache(bucket: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    store = S3Store(bucket, "", cache)
    old, used, other = (store.put_bytes(bytes([i])) for i in range(3))
    half, foreign = cache / ".half.0011.aside", cache / "notes.txt"
    paths = [store.local_path(digest) for digest in (old, used)]
    foreign.touch()  # of an operator who has named a folder in use
    half.write_bytes(b"half")
    for path in (*paths, half, foreign):
        os.utime(path, (0, 0))
    assert store.local_path(used).read_bytes() == b"\x01"  # in use: young again
    fresh = S3Store(bucket, "", cache)
    fresh.local_path(other)
    assert [path.exists() for path in (*paths, half)] == [False, True, False]
    assert foreign.exists()
    assert fresh.local_path(old).read_bytes() == b"\x00"


def test_parts_of_an_upload_that_was_killed_are_given_up(bucket: str, tmp_path: Path) -> None:
    client = boto3.client("s3")
    for key in ("net/blobs/ab/half", "other/blobs/ab/half"):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x")
    store = S3Store(bucket, "net", tmp_path / "cache")
    store.tidy(0)  # moto says of every upload that it began in 2010
    assert len(client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 2
    store.tidy(time.time())
    (left,) = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert left["Key"] == "other/blobs/ab/half"


def test_what_is_renewed_while_it_is_discarded_waits_for_the_outcome(
    bucket: str, tmp_path: Path
) -> None:
    client = boto3.client("s3")
    store = S3Store(bucket, "", tmp_path / "cache")
    digest = store.put_bytes(b"weights")
    mark = {"Bucket": bucket, "Key": f"discarding/{digest}"}
    client.put_object(**mark, Body=b"")  # a collector has looked at the age, and will delete
    seen: list[str] = []
    renewing = threading.Thread(target=lambda: seen.append(store.put_bytes(b"weights")))
    renewing.start()
    time.sleep(1)
    assert seen == []
    store.delete(digest)
    client.delete_object(**mark)
    renewing.join(20)
    assert seen == [digest]
    assert store.read_bytes(digest, 10) == b"weights"
