"""What a merge's run holds: parameters, metrics and tags out of its record; pure, no MLflow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.history.record import MergeRecord

PREFIX = "rootstock."
MERGE_ID = PREFIX + "merge_id"
DIGEST = PREFIX + "digest"
NUMBER = PREFIX + "number"
STATE = PREFIX + "state"
RECORD = PREFIX + "record"
"""Tag that names the record that a run shows completely, and the way in which it does."""

SHOWN = 4
"""Grows by one when runs show more, or show it otherwise: a rebuild then brings older ones up to
date."""

_CALIBRATION = ("_scale", "_bias", "_uncalibrated_error", "_calibrated_error")
"""Endings of the numbers that belong to a candidate's calibration."""


MAX_KEY = 200
"""Characters of a lab's key; MLflow takes 250."""
_UNSOUND = re.compile(r"[^A-Za-z0-9_\-. /]")


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    key: str
    value: float
    step: int


def merge_tags(record: MergeRecord) -> dict[str, str]:
    """Return the tags that find a merge again: its id, its state, every digest, both versions."""
    tags = {
        MERGE_ID: record.merge_id,
        PREFIX + "net": record.net,
        PREFIX + "category": record.category,
        PREFIX + "task": record.task,
        PREFIX + "site": record.site,
        PREFIX + "operation": record.operation,
        STATE: record.state,
        PREFIX + "reason": record.reason,
        PREFIX + "parent.number": _text(record.parent_number),
        PREFIX + "parent.digest": _text(record.parent_digest),
        NUMBER: _text(record.number),
        DIGEST: _text(record.digest),
        PREFIX + "adapter.uri": _text(record.adapter_uri),
    }
    tags |= {f"{PREFIX}digest.{role}": digest for role, digest in record.digests.items()}
    return {key: value for key, value in tags.items() if value}


def version_tags(record: MergeRecord) -> dict[str, str]:
    """Return the tags of the net version that a merge committed: what it is and what is new."""
    new = {f"{PREFIX}digest.{role}" for role in ("tree", "category_module", "adapter")}
    keep = {NUMBER, DIGEST, MERGE_ID, STATE, PREFIX + "parent.number", PREFIX + "parent.digest"}
    return {key: value for key, value in merge_tags(record).items() if key in keep | new}


def parameters(record: MergeRecord) -> dict[str, str]:
    """Return what was joined and the settings that the adapter was learned with, as text."""
    own = {"category": record.category, "task": record.task, "site": record.site}
    if record.candidate is not None:
        own["candidate"] = record.candidate
    return own | {key: str(value) for key, value in record.parameters.items()}


def metrics(record: MergeRecord) -> list[Point]:
    """Return losses by stage and step, the error from stage to stage, and every number once.

    MLflow's pages group charts by what stands before the slash: `zero-sample/loss`,
    `calibration/refined_scale`. Errors, which people look for first, have no group; the numbers
    of the teacher's manifest have `teacher/`.
    """
    points = [Point(_grouped(key), value, 0) for key, value in sorted(record.numbers.items())]
    steps = {candidate: step for step, candidate in enumerate(Candidate)}
    points += [
        Point("error", error, steps[candidate])
        for candidate, error in record.measured.shown_errors.items()
    ]
    teacher: dict[str, float] = {}
    for key, value in sorted(record.teacher_numbers.items()):
        teacher.setdefault(f"teacher/{_sound(key)}", value)
    points += [Point(key, value, 0) for key, value in teacher.items()]
    for curve in record.curves:
        points += [
            Point(f"{curve.stage}/loss", curve.loss, curve.step),
            Point(f"{curve.stage}/task_loss", curve.task_loss, curve.step),
            Point(f"{curve.stage}/distillation_loss", curve.distillation_loss, curve.step),
        ]
    return points


def accepted_error(record: MergeRecord) -> float | None:
    """Return the error of what was joined, or of the best candidate that was not, in percent."""
    if record.candidate is None and record.number is None:
        return None
    return record.measured.error_of(record.candidate)


def complete(record: MergeRecord) -> str:
    """Return what a run's `RECORD` says once all of a record is there."""
    return f"{SHOWN}:{record.content_digest()}"


def milliseconds(moment: str) -> int:
    """Turn ISO 8601 into milliseconds since 1970."""
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _grouped(key: str) -> str:
    return f"calibration/{key}" if key.endswith(_CALIBRATION) else key


def _sound(key: str) -> str:
    """Return a lab's key as MLflow takes it: letters, digits and a few signs, no path upwards."""
    sound = _UNSOUND.sub("_", key.replace("->", " to "))
    whole = "/".join(part.strip(".") or "_" for part in sound.split("/"))
    return whole[:MAX_KEY].rstrip("/")  # a cut may end in a slash, which MLflow refuses


def _text(value: object) -> str:
    return "" if value is None else str(value)
