from __future__ import annotations

import asyncio

import pytest

from common.errors import ConflictError
from coordinator.places import Places
from coordinator.recording import Recorder
from coordinator.registry import SubmissionState
from tests.unit.coordinator.conftest import receive, teacher


class PickyHistory:
    """Refuses one merge for good, as MLflow does when somebody has deleted its run."""

    def __init__(self, refused):
        self._refused = refused

    def log_merge(self, record):
        if record.merge_id == self._refused:
            raise ConflictError(f"MLflow refused merge {record.merge_id}")
        return f"run of {record.merge_id}"

    def show_head(self, head, parent):
        assert (head, parent) == (None, None)  # nothing was merged


def test_a_merge_that_cannot_be_logged_holds_up_no_other(ledger):
    registry = ledger.registry
    for category in ("cat", "dog"):
        submission = receive(ledger, teacher(ledger, f"{category}-lab", category))
        registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        ledger.fail_all(registry.submissions.get(submission), "no")
    cat, dog = registry.merges.unlogged()

    async def log():
        up = asyncio.get_running_loop().create_future()
        up.set_result("the experiment")
        await Recorder(ledger, PickyHistory(cat.id), Places(ledger.config), up).log_all()

    with pytest.raises(ConflictError, match=cat.id):
        asyncio.run(log())
    assert [cat.id] == [merge.id for merge in registry.merges.unlogged()]
    assert f"run of {dog.id}" == registry.merges.get(dog.id).mlflow_run_id


def test_nothing_is_logged_before_mlflow_has_answered(ledger):
    submission = receive(ledger, teacher(ledger, "cat-lab", "cat"))
    ledger.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    ledger.fail_all(ledger.registry.submissions.get(submission), "no")

    async def log():
        up = asyncio.get_running_loop().create_future()
        recorder = Recorder(ledger, PickyHistory(""), Places(ledger.config), up)
        logging = asyncio.create_task(recorder.log_all())
        await asyncio.sleep(0.05)
        before = ledger.registry.merges.unlogged()
        up.set_result("the experiment")
        await logging
        return len(before), len(ledger.registry.merges.unlogged())

    assert asyncio.run(log()) == (1, 0)
