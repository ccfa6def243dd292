"""What a merge's run shows: tags, parameters, metrics and sentences. Pure, no MLflow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.history.record import MergeRecord

PREFIX = "rootstock."
COORDINATOR = PREFIX + "coordinator"
"""Fingerprint of the key of the coordinator whose net this is: on the experiment, the model, every
run and every version."""
MERGE_ID = PREFIX + "merge_id"
DIGEST = PREFIX + "digest"
NUMBER = PREFIX + "number"
STATE = PREFIX + "state"
RECORD = PREFIX + "record"
"""Tag of the record that a run shows completely, and of the way in which it does."""

SHOWN = 5
"""Grows by one when runs show more, or show it otherwise: a rebuild then updates older ones."""

_CALIBRATION = ("_scale", "_bias", "_uncalibrated_error", "_calibrated_error")
"""Endings of the numbers that belong to a candidate's calibration."""

MAX_KEY = 200
"""Characters of a lab's key; MLflow takes 250."""
_REFUSED = re.compile(r"[^A-Za-z0-9_\-. /]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>&~-])")

EXPERIMENT = (
    "A transplant net and how it grew: one run a merge, and one registered model version a net "
    "version, aliases *current* and *previous*. Errors are percentages on the owning labs' private "
    "validation data. Each run has a report among its artifacts. This is a view: "
    "`rootstock coordinator history rebuild` makes it again from the registry."
)


NET = (
    "A transplant net. Each version has every module and every join of the version before. "
    "The weights are in the coordinator's store, by the digests in a version's tree.json."
)


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    key: str
    value: float
    step: int


def merge_tags(record: MergeRecord) -> dict[str, str]:
    """Return the tags that a merge is searched by: its id, its state, every digest, versions."""
    tags: dict[str, object] = {
        MERGE_ID: record.merge_id,
        PREFIX + "net": record.net,
        PREFIX + "category": record.category,
        PREFIX + "task": record.task,
        PREFIX + "site": record.site,
        PREFIX + "operation": record.operation,
        STATE: record.state,
        PREFIX + "reason": record.reason,
        PREFIX + "parent.number": record.parent_number,
        PREFIX + "parent.digest": record.parent_digest,
        NUMBER: record.number,
        DIGEST: record.digest,
        PREFIX + "adapter.uri": record.adapter_uri,
    }
    tags |= {f"{PREFIX}digest.{role}": digest for role, digest in record.digests.items()}
    return {key: str(value) for key, value in tags.items() if value not in (None, "")}


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
        teacher.setdefault(f"teacher/{_accepted_key(key)}", value)
    points += [Point(key, value, 0) for key, value in teacher.items()]
    for curve in record.curves:
        for loss in ("loss", "task_loss", "distillation_loss"):
            points.append(Point(f"{curve.stage}/{loss}", getattr(curve, loss), curve.step))
    return points


def record_tag(record: MergeRecord) -> str:
    """Return the value of a run's tag `RECORD` once the run shows all of a record."""
    return f"{SHOWN}:{record.content_digest()}"


def milliseconds(moment: str) -> int:
    """Turn ISO 8601 into milliseconds since 1970."""
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def state_name(record: MergeRecord) -> str:
    """Return a merge's state as people read it: "Rolled back"."""
    return record.state.replace("_", " ").capitalize()


def run_name(record: MergeRecord) -> str:
    """Return how a list of runs calls a merge: what was joined, and what became of it."""
    if record.state == "merged":
        return f"v{record.number} {record.join}"
    return f"{record.join} ({state_name(record).lower()})"


def outcome(record: MergeRecord) -> str:
    """Return what became of a merge, in a sentence."""
    match record.state:
        case "merged" if record.parent_number is None:
            return f"Founded the net {record.net} as its version {record.number}."
        case "merged":
            return f"Merged as net version {record.number}, on version {record.parent_number}."
        case "rolled_back":
            return f"Merged as net version {record.number} and rolled back since."
        case state:
            ended = "Rejected" if state == "rejected" else "Failed"
            if record.parent_number is None:
                return f"{ended}."
            return f"{ended}; the net stays at version {record.parent_number}."


def decision(record: MergeRecord) -> str:
    """Return why it became of it: the reason that was recorded, or what the numbers say."""
    if record.reason:
        return record.reason
    if record.candidate is None:
        return "The teacher net's own modules were joined as they were trained."
    error, teacher = record.error, record.measured.teacher_error
    if error is None:
        return ""
    joined = f"Joined by {record.candidate.phrase}: {error:.1f}% error"
    return f"{joined}." if teacher is None else f"{joined}, the teacher has {teacher:.1f}%."


def description(record: MergeRecord) -> str:
    """Return a run's description in Markdown; words of peers are escaped."""
    fallbacks = [
        f"- {key.removesuffix(ending).replace('_', ' ')}: {phrase} {escaped(str(value))}"
        for ending, phrase in (("_fallback", "gave up"), ("_without", "did without"))
        for key, value in record.parameters.items()
        if key.endswith(ending)
    ]
    digests = [f"| {escaped(role)} | `{digest}` |" for role, digest in record.digests.items()]
    return "\n".join(
        [
            f"**{outcome(record)}** {escaped(decision(record))}",
            "",
            *fallbacks,
            "",
            "All of it: `report.html` among the artifacts.",
            "",
            "| what | SHA-256 |",
            "|---|---|",
            *digests,
        ]
    )


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", text)


def _grouped(key: str) -> str:
    return f"calibration/{key}" if key.endswith(_CALIBRATION) else key


def _accepted_key(key: str) -> str:
    """Return a lab's key as MLflow takes it: letters, digits and a few signs, no path upwards."""
    clean = _REFUSED.sub("_", key.replace("->", " to "))
    whole = "/".join(part.strip(".") or "_" for part in clean.split("/"))
    return whole[:MAX_KEY].rstrip("/")  # a cut may end in a slash, which MLflow refuses
