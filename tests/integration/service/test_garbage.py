"""Collections beside a server that works: what labs are told is there stays there."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

import pytest

from rootstock.common.errors import SchemaError
from rootstock.coordinator.garbage.collector import collect_garbage
from rootstock.coordinator.registry import SubmissionState
from rootstock.deploy.client import OperatorClient
from tests.support.coordinator_server import Lab, LabMaker, Running


def collect(running: Running, *, grace_seconds: float = 0.0) -> tuple[str, ...]:
    return collect_garbage(
        running.registry, running.store, running.plan, None, grace_seconds=grace_seconds
    ).digests


def refused(running: Running, lab: Lab, category: str, seed: int) -> str:
    """Ship a teacher that is refused: nothing needs its blobs any more."""
    receipt = lab.ship(lab.teacher(category, seed))
    running.registry.submissions.set_state(receipt.submission_id, SubmissionState.REFUSED)
    return receipt.submission_id


def test_the_operator_s_client_has_a_running_coordinator_collect(
    coordinator: Running, lab: LabMaker
) -> None:
    cat = lab("cat-lab")
    refused(coordinator, cat, "cat", 1)
    cat.ship(cat.teacher("lynx", 2))
    before = {blob.digest for blob in coordinator.store.blobs()}
    module = cat.teacher("cat", 1).manifest.category_module
    os.utime(coordinator.store.local_path(module.digest), (0, 0))
    with OperatorClient(coordinator.paths.state) as operator:
        told = operator.collect_garbage()
    assert told.digests == (module.digest,)
    assert (told.deleted.blobs, told.deleted.bytes) == (1, module.size)
    assert told.kept["young"].blobs == 1  # g of the same teacher
    assert {blob.digest for blob in coordinator.store.blobs()} == before - {module.digest}


def test_what_was_collected_before_the_commit_is_asked_for_again(
    coordinator: Running, lab: LabMaker
) -> None:
    cat = lab("cat-lab")
    refused(coordinator, cat, "cat", 1)
    again = cat.teacher("lynx", 1)  # the same weights under another category
    begun = cat.begin(again.manifest)
    assert list(begun.missing) == []
    # What has been begun counts, however old the blobs are.
    assert collect(coordinator, grace_seconds=-5.0) == ()
    module = again.manifest.category_module.digest
    coordinator.store.delete(module)  # as if its lease had been over when they were collected
    with pytest.raises(SchemaError, match=f"blob {module} is truncated: 0 of .* begin the upload"):
        cat.commit(begun.upload_id)
    assert [blob.digest for blob in cat.begin(again.manifest).missing] == [module]
    assert cat.ship(again).submission_id == begun.upload_id
    assert coordinator.store.has(module)


def test_a_receipt_begins_the_age_of_what_was_there_anew(
    coordinator: Running, lab: LabMaker
) -> None:
    """A collection that has not seen the receipt then leaves it alone."""
    cat = lab("cat-lab")
    refused(coordinator, cat, "cat", 1)
    again = cat.teacher("lynx", 1)
    for digest in again.files:
        os.utime(coordinator.store.local_path(digest), (0, 0))
    before = time.time()
    cat.ship(again)
    ages = {blob.digest: blob.put_at for blob in coordinator.store.blobs()}
    assert all(ages[digest] > before - 1 for digest in again.files)


def test_a_receipt_is_never_for_a_blob_that_was_collected(
    coordinator: Running, lab: LabMaker
) -> None:
    """Collect with no grace, again and again, while a lab ships what has become garbage."""
    cat = lab("cat-lab")
    stop = threading.Event()
    faults: list[BaseException] = []
    deleted: list[str] = []

    def collector() -> None:
        while not stop.is_set():
            try:
                deleted.extend(collect(coordinator))
            except BaseException as error:
                faults.append(error)
                raise

    working = threading.Thread(target=collector)
    working.start()
    until = time.monotonic() + 12
    count = 0
    try:
        while time.monotonic() < until or count < 3:
            count += 1
            teacher = cat.teacher(f"cat-{count}", 1)
            receipt = None
            while receipt is None:
                with suppress(SchemaError):  # truncated: it is asked for again
                    receipt = cat.ship(teacher)
            for digest in (*teacher.files, receipt.manifest_digest):
                assert coordinator.store.has(digest)
            coordinator.registry.submissions.set_state(
                receipt.submission_id, SubmissionState.REFUSED
            )
    finally:
        stop.set()
        working.join()
    assert faults == []
    assert deleted, "nothing was collected in between: the test shows nothing"
