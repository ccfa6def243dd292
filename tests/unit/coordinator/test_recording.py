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


def test_a_merge_that_cannot_be_logged_holds_up_no_other(ledger):
    registry = ledger.registry
    for category in ("cat", "dog"):
        submission = receive(ledger, teacher(ledger, f"{category}-lab", category))
        registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        ledger.fail_all(registry.submissions.get(submission), "no")
    cat, dog = registry.merges.unlogged()
    recorder = Recorder(ledger, PickyHistory(cat.id), Places(ledger.config))
    with pytest.raises(ConflictError, match=cat.id):
        asyncio.run(recorder.log_all())
    assert [cat.id] == [merge.id for merge in registry.merges.unlogged()]
    assert f"run of {dog.id}" == registry.merges.get(dog.id).mlflow_run_id
