"""One suite over every kind of store."""

import hashlib
from pathlib import Path

import pytest

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import IntegrityError, LimitError, NotFoundError, SchemaError

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
    assert list(store.digests()) == []


def test_putting_twice_is_putting_once(store: BlobStore, tmp_path: Path) -> None:
    path = file_of(tmp_path, b"weights")
    for move in (False, False, True):
        store.put_file(path, sha256(b"weights"), move=move)
    assert not path.exists()
    assert [sha256(b"weights")] == list(store.digests())
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


def test_digests_are_listed_in_order(store: BlobStore) -> None:
    put = [store.put_bytes(bytes([i])) for i in range(20)]
    assert sorted(put) == list(store.digests())


def test_refs_move_and_go(store: BlobStore) -> None:
    first, second = store.put_bytes(b"1"), store.put_bytes(b"2")
    assert store.get_ref("net/animals") is None
    store.put_ref("net/animals", first)
    store.put_ref("net/animals-2", second)
    assert first == store.get_ref("net/animals")
    store.put_ref("net/animals", second)
    assert second == store.get_ref("net/animals")
    store.delete_ref("net/animals")
    store.delete_ref("net/animals")
    assert store.get_ref("net/animals") is None
    assert second == store.get_ref("net/animals-2")
    assert [first, second] == sorted(store.digests(), key=[first, second].index)


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
