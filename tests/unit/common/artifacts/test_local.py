import fcntl
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.artifacts.uri import open_store
from rootstock.common.errors import ConfigurationError, StorageError
from tests.support.small_disk import run_on_disk


def test_blobs_cannot_be_written_to(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    store.put_file(path, hashlib.sha256(b"weights").hexdigest(), move=True)
    digest = store.put_bytes(b"tree")
    digests = [blob.digest for blob in store.blobs()]
    for blob in digests:
        assert stat.S_IMODE(store.local_path(blob).stat().st_mode) == 0o400
    assert digest in digests


def test_a_move_copies_no_byte(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    inode = path.stat().st_ino
    digest = hashlib.sha256(b"weights").hexdigest()
    store.put_file(path, digest, move=True)
    assert inode == store.local_path(digest).stat().st_ino


def test_bytes_that_the_disk_changed_are_not_handed_out(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = store.put_bytes(b"tree")
    assert store.read_bytes(digest, 100) == b"tree"
    path = store.local_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"free")
    with pytest.raises(StorageError, match="do not match the name"):
        store.read_bytes(digest, 100)


def test_a_file_being_written_is_no_blob(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = store.put_bytes(b"tree")
    (store.local_path(digest).parent / f".{digest}.0011.aside").write_bytes(b"half")
    assert [digest] == [blob.digest for blob in store.blobs()]


def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    said = run_on_disk(
        tmp_path,
        """
from rootstock.common.artifacts.local import LocalStore
store = LocalStore(disk / "store")
small = store.put_bytes(b"tree")
store.put_ref("head", small)
for data in (bytes(2 << 20),):
    try:
        store.put_bytes(data)
    except StorageError as error:
        print(error)
assert store.get_ref("head") == small
assert [blob.digest for blob in store.blobs()] == [small]
assert store.put_bytes(b"after") in {blob.digest for blob in store.blobs()}
""",
    )
    assert "disk/store/blobs" in said
    assert "No space left" in said
    assert "free space" in said


def test_a_read_only_disk_is_named_and_still_read(tmp_path: Path) -> None:
    said = run_on_disk(
        tmp_path,
        """
from rootstock.common.artifacts.local import LocalStore
LocalStore(disk / "store").put_bytes(b"tree")
# read-only
from rootstock.common.artifacts.local import LocalStore
store = LocalStore(disk / "store")
[(digest, _, _)] = store.blobs()
assert store.read_bytes(digest, 10) == b"tree"
for put in (lambda: store.put_bytes(b"x"), lambda: store.put_ref("head", digest)):
    try:
        put()
    except StorageError as error:
        print(error)
""",
        read_only=True,
    )
    assert said.count("Read-only file system; mount that disk writable") == 2


def test_a_folder_that_may_not_be_written_is_named() -> None:
    # Not even root may make files there.
    with pytest.raises(StorageError, match=r"/sys/kernel/.*ermi.*another folder"):
        LocalStore(Path("/sys/kernel/rootstock")).put_bytes(b"x")


def test_stores_are_opened_by_address(tmp_path: Path) -> None:
    digest = open_store(str(tmp_path / "a"), tmp_path / "cache").put_bytes(b"x")
    assert open_store(f"file://{tmp_path}/a", tmp_path / "cache").has(digest)
    assert not open_store(str(tmp_path / "b"), tmp_path / "cache").has(digest)
    for uri in ("ftp://host/x", "s3:///prefix", "file://elsewhere/x"):
        with pytest.raises(ConfigurationError, match="artifacts = "):
            open_store(uri, tmp_path)


def test_files_are_put_across_file_systems(tmp_path: Path) -> None:
    said = run_on_disk(
        tmp_path,
        f"""
import hashlib
from rootstock.common.artifacts.local import LocalStore
path = disk / "file"
path.write_bytes(b"weights")
digest = hashlib.sha256(b"weights").hexdigest()
store = LocalStore(Path({str(tmp_path)!r}) / "elsewhere")
store.put_file(path, digest, move=True)
assert not path.exists()
print(store.read_bytes(digest, 10))
""",
    )
    assert said == "b'weights'\n"
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["blobs"]


def test_what_is_renewed_while_it_is_discarded_waits_for_the_outcome(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = store.put_bytes(b"weights")
    seen: list[str] = []
    renewing = threading.Thread(target=lambda: seen.append(store.put_bytes(b"weights")))
    with (tmp_path / "store" / "discarding").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # a collector has looked at the age, and will delete
        renewing.start()
        time.sleep(0.5)
        assert seen == []
        store.delete(digest)
    renewing.join(20)
    assert seen == [digest]
    assert store.read_bytes(digest, 10) == b"weights"


def test_half_written_files_of_killed_writers_go_once_they_are_old(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    folder = store.local_path(store.put_bytes(b"tree")).parent
    (tmp_path / "store" / "samples" / "sub-0001" / "blobs").mkdir(parents=True)
    old = [folder / ".x.0011.aside", tmp_path / "store" / "samples" / "sub-0001" / ".x.0011.aside"]
    young = folder / ".y.0022.aside"
    for path in (*old, young):
        path.write_bytes(b"half")
    for path in old:
        os.utime(path, (0, 0))
    store.tidy(time.time() - 3600)
    assert [path.exists() for path in (*old, young)] == [False, False, True]
    assert len(list(store.blobs())) == 1


OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
@pytest.mark.parametrize("opened", ["before", "since"])
@pytest.mark.parametrize(
    "use",
    [
        lambda store, digest: store.has(digest),
        lambda store, digest: store.size(digest),
        lambda store, digest: store.renew(digest),
        lambda store, digest: store.read_bytes(digest, 10),
        lambda store, digest: store.local_path(digest),
        lambda store, digest: store.put_bytes(b"new"),
        lambda store, digest: store.put_file(Path(__file__), digest, verified=True),
        lambda store, digest: store.put_ref("here", digest),
        lambda store, digest: store.area("jobs/mrg-0001").put_bytes(b"new"),
        lambda store, digest: store.area("jobs/mrg-0001").put_ref("here", digest),
        lambda store, digest: store.area("jobs/mrg-0001").local_path(digest),
    ],
)
def test_a_disk_that_is_not_mounted_is_no_loss_and_is_not_written_below(
    tmp_path: Path, left: str, opened: str, use: Callable[[LocalStore, str], object]
) -> None:
    root, away = tmp_path / "store", tmp_path / "away"
    store = LocalStore(root)
    digest = store.put_bytes(b"kept")
    root.rename(away)
    if left == "an empty folder":
        root.mkdir()
    if opened == "since":
        store = LocalStore(root, began=True)
    with pytest.raises(StorageError, match="the store's folder is not there; mount its disk"):
        use(store, digest)
    assert not root.exists() or not list(root.iterdir())
    if root.exists():
        root.rmdir()
    away.rename(root)
    assert store.read_bytes(digest, 10) == b"kept"
    assert not store.has(OTHER)
    assert store.read_bytes(store.put_bytes(b"new"), 10) == b"new"
