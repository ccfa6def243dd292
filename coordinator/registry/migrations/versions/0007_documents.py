"""Events, evaluation requests and reports are JSON documents; they were protobuf messages.

The messages are read here as they were on the wire when this was written: field by field, without
the generated code, which may change.
"""

import json
import struct
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ROWS = 500
"""Rows converted at once: there may be hundreds of thousands of events."""

NEWS: dict[int, dict[int, str]] = {
    3: {1: "submission_id", 2: "manifest_digest", 3: "state", 4: "reason"},
    5: {1: "number", 2: "digest", 3: "category", 4: "task"},
    7: {1: "merge_id", 2: "state", 3: "reason"},
    8: {1: "submission_id", 2: "count"},
    9: {1: "number", 2: "origin"},
}
"""Names of an event's fields, by its own field of WatchResponse; 4 is an evaluation request."""
REQUEST = 4


def upgrade() -> None:
    _convert("events", "cursor", payload=_event)
    _convert("evaluations", "id", request=_request, report=_report)


def downgrade() -> None:
    # The version before reads no documents: labs are asked again, and hear nothing of old news.
    for table, column in (("events", "payload"), ("evaluations", "request")):
        rows = sa.table(table, sa.column(column, sa.LargeBinary))
        op.execute(sa.delete(rows).where(sa.func.substr(rows.c[column], 1, 1) == b"{"))


def _convert(name: str, key: str, **columns: Callable[[bytes], dict[str, Any]]) -> None:
    connection = op.get_bind()
    table = sa.table(name, sa.column(key), *(sa.column(each, sa.LargeBinary) for each in columns))
    page = sa.select(table).order_by(table.c[key]).limit(ROWS)
    rows = connection.execute(page).mappings().all()
    while rows:
        for row in rows:
            values = {each: _document(read, row[each]) for each, read in columns.items()}
            connection.execute(sa.update(table).where(table.c[key] == row[key]).values(values))
        page_after = page.where(table.c[key] > rows[-1][key])
        rows = connection.execute(page_after).mappings().all()


def _document(read: Callable[[bytes], dict[str, Any]], message: bytes | None) -> bytes | None:
    """Return a message as a document; what is no message, and nobody could read, stays."""
    if message is None:
        return None
    try:
        document = read(message)
    except (ValueError, LookupError, struct.error):
        return message
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _event(message: bytes) -> dict[str, Any]:
    ((number, (body,)),) = _fields(message).items()
    if number == REQUEST:
        return _request(body)
    fields = _fields(body)
    return {
        name: _number(fields, field) if name in ("number", "count") else _text(fields, field)
        for field, name in NEWS[number].items()
    }


def _request(message: bytes) -> dict[str, Any]:
    fields = _fields(message)
    candidates = {}
    for each in map(_fields, fields.get(7, [])):
        candidates[_text(each, 1)] = json.loads(each[2][0]) if each.get(2) else None
    return {
        "evaluation_id": _text(fields, 1),
        "merge_id": _text(fields, 2),
        "manifest_digest": _text(fields, 3),
        "task": _text(fields, 4),
        "architecture": json.loads(fields[5][0]),
        "task_module": json.loads(fields[6][0]),
        "candidates": candidates,
        "refinement_spec": json.loads(fields[9][0]) if _number(fields, 8) else None,
    }


def _report(message: bytes) -> dict[str, Any]:
    fields = _fields(message)
    refinement = {
        "manifest_digest": _text(fields, 3),
        "error": _number(fields, 4),
        "mean_iou": _number(fields, 9, None),
        "calibration": _calibration(fields, 8),
        "seconds": _number(fields, 5),
        "steps": _number(fields, 6),
    }
    return {
        "evaluation_id": _text(fields, 1),
        "results": [
            {
                "name": _text(result, 1),
                "error": _number(result, 2),
                "samples": _number(result, 3),
                "mean_iou": _number(result, 5, None),
                "calibration": _calibration(result, 4),
            }
            for result in map(_fields, fields.get(2, []))
        ],
        "refinement": refinement if refinement["manifest_digest"] else None,
        "failure": _text(fields, 7),
    }


def _calibration(fields: dict[int, list[Any]], number: int) -> dict[str, Any] | None:
    if number not in fields:
        return None
    inner = _fields(fields[number][-1])
    return {
        "scale": _number(inner, 1),
        "bias": _number(inner, 2),
        "error": _number(inner, 3),
        "mean_iou": _number(inner, 4, None),
    }


def _text(fields: dict[int, list[Any]], number: int) -> str:
    return str(fields.get(number, [b""])[-1], "utf-8")


def _number(fields: dict[int, list[Any]], number: int, default: float | None = 0) -> Any:
    return fields.get(number, [default])[-1]


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Return a message's values by field number: whole numbers, doubles, bytes."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: Any
        match tag & 7:
            case 0:
                value, at = _varint(message, at)
            case 1:
                (value,), at = struct.unpack_from("<d", message, at), at + 8
            case 2:
                size, at = _varint(message, at)
                value, at = message[at : at + size], at + size
            case kind:
                raise ValueError(f"wire type {kind}")
        if at > len(message) or tag < 8:
            raise ValueError("no message")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
