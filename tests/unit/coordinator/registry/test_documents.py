"""What the database holds as documents, and what it held as protobuf messages before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command

from rootstock.coordinator.registry import Event, Registry
from rootstock.coordinator.registry.migrate import alembic_config, migrate
from rootstock.coordinator.service.messages import (
    evaluation_report,
    evaluation_request,
    watch_response,
)
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb

STORED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "stored_before_kinds.json").read_text(encoding="utf-8")
)
"""Rows of a database of revision 0004: `events` and `evaluations`; bytes are in hex."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sqlalchemy.Engine]:
    """A database whose rows the version with messages wrote."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'old.sqlite'}")
    evaluations = [(each["id"], each["request"], each["report"]) for each in STORED["evaluations"]]
    evaluations += [
        (f"evl-000{number}", STORED["evaluations"][0]["request"], report)
        for number, report in enumerate(STORED["reports"], start=7)
    ]
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0004")
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        for cursor, event in enumerate(STORED["events"], start=1):
            connection.exec_driver_sql(
                "INSERT INTO events (cursor, site, kind, payload, created_at) VALUES (?,?,?,?,0)",
                (cursor, event["site"], event["kind"], bytes.fromhex(event["payload"])),
            )
        for name, request, report in evaluations:
            connection.exec_driver_sql(
                "INSERT INTO evaluations VALUES (?, 'mrg-0002', 'dog-lab', ?, ?, 0, 0)",
                (name, bytes.fromhex(request), bytes.fromhex(report)),
            )
    yield engine
    engine.dispose()


def test_every_event_of_before_travels_as_it_did(engine: sqlalchemy.Engine) -> None:
    with engine.begin() as connection:
        migrate(connection)
        rows = connection.exec_driver_sql("SELECT cursor, site, kind, payload FROM events").all()
    assert {row.kind for row in rows} == {
        "evaluation",
        "merge",
        "submission",
        "samples",
        "version",
        "heads",
    }
    for row, stored in zip(rows, STORED["events"], strict=True):
        expected = pb.WatchResponse.FromString(bytes.fromhex(stored["payload"]))
        expected.cursor = row.cursor
        assert watch_response(Event(*row)) == expected


def test_every_question_and_answer_of_before_is_read(
    engine: sqlalchemy.Engine, tmp_path: Path
) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'old.sqlite'}")
    for stored in STORED["evaluations"]:
        found = registry.evaluations.get(stored["id"])
        asked = pb.EvaluationRequest.FromString(bytes.fromhex(stored["request"]))
        told = pb.ReportEvaluationRequest.FromString(bytes.fromhex(stored["report"]))
        assert evaluation_request(found.request) == asked
        assert found.report == evaluation_report(told)
    for number, report in enumerate(STORED["reports"], start=7):
        told = pb.ReportEvaluationRequest.FromString(bytes.fromhex(report))
        kept = registry.evaluations.get(f"evl-000{number}").report
        assert kept == evaluation_report(told)
        assert kept.model_fields_set
    registry.close()


def test_what_nobody_could_read_stays_and_the_way_back_asks_again(
    engine: sqlalchemy.Engine,
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE evaluations SET request = x'02' WHERE id = 'evl-0007'")
    with engine.begin() as connection:
        migrate(connection)
        kept = connection.exec_driver_sql("SELECT id FROM evaluations WHERE request = x'02'").all()
        assert [row.id for row in kept] == ["evl-0007"]
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0004")
        kept = connection.exec_driver_sql("SELECT id FROM evaluations").all()
        assert [row.id for row in kept] == ["evl-0007"]
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 0
