"""One suite over every kind of store."""

import hashlib
import os
import random
import threading
import time
from pathlib import Path

import pytest

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import IntegrityError, LimitError, NotFoundError, SchemaError

pytestmark = pytest.mark.slow

ABSENT = "0" * 64


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_of(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "incoming"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", [b"", b"weights", bytes(range(256)) * 5000])
def test_a_file_comes_back_as_it_was(store: BlobStore, tmp_path: Path, data: bytes) -> None:
    path = file_of(tmp_path, data)
    assert not store.has(sha256(data))
    store.put_file(path, sha256(data))
    assert store.has(sha256(data))
    assert len(data) == store.size(sha256(data))
    assert data == store.local_path(sha256(data)).read_bytes()
    assert data == store.read_bytes(sha256(data), len(data))
    assert path.exists()


def test_a_file_can_be_moved_in(store: BlobStore, tmp_path: Path) -> None:
    path = file_of(tmp_path, b"weights")
    store.put_file(path, sha256(b"weights"), verified=True, move=True)
    assert not path.exists()
    assert store.local_path(sha256(b"weights")).read_bytes() == b"weights"


@pytest.mark.parametrize("move", [False, True])
def test_a_file_with_another_digest_is_refused(
    store: BlobStore, tmp_path: Path, move: bool
) -> None:
    path = file_of(tmp_path, b"weights")
    with pytest.raises(IntegrityError, match=sha256(b"weights")):
        store.put_file(path, ABSENT, move=move)
    assert path.exists()
    assert list(store.blobs()) == []


def test_putting_twice_is_putting_once(store: BlobStore, tmp_path: Path) -> None:
    path = file_of(tmp_path, b"weights")
    for move in (False, False, True):
        store.put_file(path, sha256(b"weights"), move=move)
    assert not path.exists()
    assert [sha256(b"weights")] == [blob.digest for blob in store.blobs()]
    assert store.put_bytes(b"weights") == sha256(b"weights")


def test_documents_have_a_cap(store: BlobStore) -> None:
    digest = store.put_bytes(b"0123456789")
    assert store.read_bytes(digest, 10) == b"0123456789"
    with pytest.raises(LimitError, match="more than 9 bytes"):
        store.read_bytes(digest, 9)


def test_what_is_not_there_is_named(store: BlobStore, tmp_path: Path) -> None:
    for ask in (store.size, store.local_path, lambda d: store.read_bytes(d, 10)):
        with pytest.raises(NotFoundError, match=ABSENT):
            ask(ABSENT)
    with pytest.raises(NotFoundError, match="nowhere"):
        store.put_file(tmp_path / "nowhere", ABSENT)


@pytest.mark.parametrize(
    "digest", ["", "abc", "../" * 21 + "x", "A" * 64, "0" * 63 + "\n", "0" * 65]
)
def test_malformed_digests_are_refused(store: BlobStore, digest: str) -> None:
    with pytest.raises(SchemaError, match="64 lower-case hex"):
        store.has(digest)


def test_blobs_are_listed_in_order_with_size_and_age(store: BlobStore) -> None:
    began = time.time()
    put = [store.put_bytes(bytes([i]) * i) for i in range(20)]
    listed = list(store.blobs())
    assert sorted(put) == [blob.digest for blob in listed]
    assert {blob.digest: blob.size for blob in listed} == {put[i]: i for i in range(20)}
    # S3 says whole seconds.
    assert all(began - 1 <= blob.put_at <= time.time() + 1 for blob in listed)


def test_refs_move_and_are_listed(store: BlobStore) -> None:
    first, second = store.put_bytes(b"1"), store.put_bytes(b"2")
    assert store.get_ref("net/animals") is None
    store.put_ref("net/animals", first)
    store.put_ref("net/animals-2", second)
    assert first == store.get_ref("net/animals")
    store.put_ref("net/animals", second)
    assert second == store.get_ref("net/animals")
    assert list(store.refs("net")) == ["net/animals", "net/animals-2"]
    assert list(store.refs("net/animals")) == list(store.refs("other")) == []
    assert second == store.get_ref("net/animals-2")
    assert {first, second} == {blob.digest for blob in store.blobs()}


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".x", "a b", "A"])
def test_refs_that_could_leave_the_store_are_refused(store: BlobStore, name: str) -> None:
    with pytest.raises(SchemaError, match="cannot name anything"):
        store.put_ref(name, ABSENT)
    with pytest.raises(SchemaError, match="cannot name anything"):
        store.get_ref(name)


def test_a_ref_points_at_digests_alone(store: BlobStore) -> None:
    with pytest.raises(SchemaError, match="64 lower-case hex"):
        store.put_ref("head", "main")


def test_a_deleted_blob_is_gone_from_the_cache_too(store: BlobStore) -> None:
    first, second = store.put_bytes(b"1"), store.put_bytes(b"2")
    assert store.local_path(first).read_bytes() == b"1"
    store.delete(first)
    store.delete(first)
    assert not store.has(first)
    with pytest.raises(NotFoundError, match=first):
        store.local_path(first)
    assert store.local_path(second).read_bytes() == b"2"
    assert store.put_bytes(b"1") == first
    assert store.has(first)


def aged(store: BlobStore, digest: str, seconds: float) -> float:
    """Return a moment by which a blob is so old; S3's own clock cannot be set back."""
    (put_at,) = (blob.put_at for blob in store.blobs() if blob.digest == digest)
    return put_at + seconds


def test_only_what_has_not_been_put_since_is_discarded(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put_bytes(b"weights")
    assert store.local_path(digest).read_bytes() == b"weights"
    assert not store.discard(digest, aged(store, digest, -1))
    assert store.has(digest)
    later = aged(store, digest, 1)
    time.sleep(2.1)  # S3 says whole seconds
    for again in (
        lambda: store.put_bytes(b"weights"),
        lambda: store.put_file(file_of(tmp_path, b"weights"), digest, move=True),
        lambda: store.renew(digest),
    ):
        again()
        assert not store.discard(digest, later)
        later = aged(store, digest, 1)
        time.sleep(2.1)
    assert store.read_bytes(digest, 10) == b"weights"
    assert store.discard(digest, later)
    assert not store.discard(digest, later)
    assert not store.has(digest)
    assert not store.renew(digest)
    with pytest.raises(NotFoundError, match=digest):
        store.local_path(digest)
    assert store.put_bytes(b"weights") == digest
    assert store.has(digest)


def test_a_file_s_age_begins_when_it_is_put(store: BlobStore, tmp_path: Path) -> None:
    path = file_of(tmp_path, b"weights")
    os.utime(path, (0, 0))  # took long to arrive
    store.put_file(path, sha256(b"weights"), verified=True, move=True)
    (blob,) = store.blobs()
    assert blob.put_at > time.time() - 60


def test_what_is_put_while_it_is_discarded_is_there_afterwards(
    store: BlobStore, tmp_path: Path
) -> None:
    """Writers put a blob that is old again and again while a collector discards it."""
    digest = sha256(b"weights")
    stop = threading.Event()
    lost: list[str] = []

    def collector() -> None:
        while not stop.is_set():
            # Just old enough to go whenever the writer is not at it.
            store.discard(digest, time.time() - GRACE)

    def writer() -> None:
        while not stop.is_set():
            before = time.time()
            store.put_bytes(b"weights")
            if not store.has(digest) and time.time() < before + GRACE:
                lost.append("put, and not there")
            time.sleep(random.uniform(0, 2 * GRACE))

    workers = [threading.Thread(target=work) for work in (collector, collector, writer, writer)]
    for worker in workers:
        worker.start()
    time.sleep(5)
    stop.set()
    for worker in workers:
        worker.join()
    assert lost == []


GRACE = 2.0
"""More than the whole second to which S3 says an age."""


def test_areas_share_nothing_and_go_as_a_whole(store: BlobStore) -> None:
    one, two = store.area("samples/sub-0001"), store.area("samples/sub-0002")
    outside = store.put_bytes(b"common")
    inside = one.put_bytes(b"private")
    assert two.put_bytes(b"private") == inside
    one.put_ref("last", inside)
    assert one.local_path(inside).read_bytes() == b"private"
    assert not store.has(inside)
    assert not one.has(outside)
    assert [blob.digest for blob in store.blobs()] == [outside]
    assert list(store.refs("last")) == []
    assert list(store.areas("samples")) == ["sub-0001", "sub-0002"]
    assert list(store.areas("jobs")) == []
    store.drop("samples/sub-0001")
    store.drop("samples/sub-0001")
    assert list(store.areas("samples")) == ["sub-0002"]
    assert list(one.blobs()) == []
    assert one.get_ref("last") is None
    with pytest.raises(NotFoundError, match=inside):
        one.local_path(inside)
    assert two.read_bytes(inside, 10) == b"private"
    with pytest.raises(SchemaError, match="cannot name anything"):
        store.area("../elsewhere")
