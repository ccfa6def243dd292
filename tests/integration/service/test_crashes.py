"""The server as a process of its own: killed without warning, and with a full disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rootstock.common.errors import StorageError
from tests.support.coordinator_process import serving
from tests.support.coordinator_server import CHUNK, Lab, Running, stalled


@contextmanager
def restarted(state: Path) -> Iterator[str]:
    running = Running(state)
    try:
        yield running.address
    finally:
        running.stop()


def test_kill_9_keeps_receipts_and_what_of_an_upload_was_durable(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serving(state) as (process, address):
        cat = Lab("cat-lab", address, tmp_path / "labs")
        promised = cat.teacher("cat", seed=1)
        receipt = cat.ship(promised)
        half = cat.teacher("cat", seed=2)
        begun = cat.begin(half.manifest)
        blob = max(begun.missing, key=lambda missing: missing.size)
        stalled(cat, half, begun.upload_id, blob, chunks=5)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        cat.close()
    with restarted(state) as address:
        again = Lab("cat-lab", address, tmp_path / "labs")
        found = again.begin(promised.manifest).receipt
        for part in ("manifest_digest", "submission_id", "received_at", "signature", "entry"):
            assert getattr(found, part) == getattr(receipt, part)
        resumed = {missing.digest: missing for missing in again.begin(half.manifest).missing}
        assert resumed[blob.digest].durable_offset == 5 * CHUNK
        assert again.ship(half).submission_id == begun.upload_id
        again.close()


def test_a_full_disk_is_told_to_the_lab_and_the_upload_resumes_once_there_is_room(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    with serving(state, "700000") as (_, address):
        cat = Lab("cat-lab", address, tmp_path / "labs")
        teacher = cat.teacher("cat")
        begun = cat.begin(teacher.manifest)
        blob = max(begun.missing, key=lambda missing: missing.size)
        assert blob.size > 700_000
        with pytest.raises(StorageError, match=f"{blob.digest}.part: File too large; raise"):
            cat.send(teacher, begun.upload_id, blob)
        cat.close()
    with restarted(state) as address:
        again = Lab("cat-lab", address, tmp_path / "labs")
        resumed = {missing.digest: missing for missing in again.begin(teacher.manifest).missing}
        assert 0 < resumed[blob.digest].durable_offset <= 700_000
        assert again.ship(teacher).submission_id == begun.upload_id
        again.close()
