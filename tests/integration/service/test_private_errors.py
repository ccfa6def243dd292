"""What a lab is told of the coordinator's failures: rule and remedy, no path, no address."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from rootstock.common.errors import RootstockError, StorageError, UnreachableError
from rootstock.coordinator.registry.evaluations import Evaluations
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from tests.support.coordinator_server import Lab, LabMaker, Running, messages_of

REPORT = pb.ReportEvaluationRequest(evaluation_id="evl-0001")


def told(error: RootstockError, state: Path) -> str:
    text = str(error)
    for secret in (str(state), str(state.parent), "/tmp/", "sqlite:/"):
        assert secret not in text
    return text


def send(lab: Lab) -> None:
    teacher = lab.teacher("cat")
    begun = lab.begin(teacher.manifest)
    lab.upload(list(messages_of(teacher, begun.upload_id, begun.missing[0])))


def test_a_disk_that_cannot_be_written(coordinator: Running, lab: LabMaker, state: Path) -> None:
    cat = lab("cat-lab")
    shutil.rmtree(state / "incoming", ignore_errors=True)
    (state / "incoming").write_bytes(b"")
    with pytest.raises((StorageError, UnreachableError)) as raised:
        send(cat)
    assert "a file stands where a folder is needed" in told(raised.value, state)
    (state / "incoming").unlink()
    send(cat)  # nothing else was wrong


def test_a_database_that_fails(coordinator: Running, lab: LabMaker, state: Path) -> None:
    cat = lab("cat-lab")
    with sqlite3.connect(state / "registry.sqlite") as connection:
        connection.execute("ALTER TABLE evaluations RENAME TO elsewhere")
    with pytest.raises(StorageError) as raised:
        cat.call("ReportEvaluation", REPORT)
    text = told(raised.value, state)
    assert text.startswith("the database sqlite:… cannot be used: no such table: evaluations")
    connection.close()


def test_a_fault_of_ours(
    coordinator: Running, lab: LabMaker, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(*_: object) -> None:
        raise ValueError(f"{state}/registry.sqlite")

    cat = lab("cat-lab")
    monkeypatch.setattr(Evaluations, "get", get)
    with pytest.raises(RootstockError) as raised:
        cat.call("ReportEvaluation", REPORT)
    assert "a fault of the coordinator" in told(raised.value, state)
    assert "ValueError" not in str(raised.value)
