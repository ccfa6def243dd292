"""Sentences about a merge: its run's name and description, the report's first lines; pure."""

from __future__ import annotations

import re

from rootstock.coordinator.history.content import accepted_error
from rootstock.coordinator.history.record import MergeRecord

STATES = {
    "merged": "Merged",
    "rejected": "Rejected",
    "failed": "Failed",
    "rolled_back": "Rolled back",
}

EXPERIMENT = (
    "A transplant net and how it grew: one run a merge, and one registered model version a net "
    "version, aliases *current* and *previous*. Errors are percentages on the owning labs' private "
    "validation data. Each run has a report among its artifacts. This is a view: "
    "`rootstock coordinator history rebuild` makes it again from the ledger."
)

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>&~-])")


def run_name(record: MergeRecord) -> str:
    """Return how a list of runs calls a merge: what was joined, and what became of it."""
    joined = f"{record.category} → {record.task}"
    if record.state == "merged":
        return f"v{record.number} {joined}"
    return f"{joined} ({STATES.get(record.state, record.state).lower()})"


def outcome(record: MergeRecord) -> str:
    """Return what became of a merge, in a sentence."""
    match record.state:
        case "merged" if record.parent_number is None:
            return f"Founded the net {record.net} as its version {record.number}."
        case "merged":
            return f"Merged as net version {record.number}, on version {record.parent_number}."
        case "rolled_back":
            return f"Merged as net version {record.number} and rolled back since."
        case "rejected":
            return f"Rejected{_unchanged(record)}."
        case _:
            return f"Failed{_unchanged(record)}."


def decision(record: MergeRecord) -> str:
    """Return why it became of it: the reason that was recorded, or what the numbers say."""
    if record.reason:
        return record.reason
    if record.candidate is None:
        return "The teacher net's own modules were joined as they were trained."
    error, teacher = accepted_error(record), record.measured.teacher_error
    if error is None:
        return ""
    joined = f"Joined by {record.candidate.phrase}: {error:.1f}% error"
    return f"{joined}." if teacher is None else f"{joined}, the teacher has {teacher:.1f}%."


def description(record: MergeRecord) -> str:
    """Return a run's description in Markdown; what came from peers is escaped."""
    lines = [f"**{outcome(record)}** {escaped(decision(record))}", ""]
    fallbacks = [
        (key.removesuffix("_fallback").replace("_", " "), str(value))
        for key, value in record.parameters.items()
        if key.endswith("_fallback")
    ]
    lines += [f"- {stage}: gave up {escaped(why)}" for stage, why in fallbacks]
    lines += ["", "All of it: `report.html` among the artifacts.", "", "| what | SHA-256 |"]
    lines += ["|---|---|"]
    lines += [f"| {escaped(role)} | `{digest}` |" for role, digest in record.digests.items()]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", text)


def _unchanged(record: MergeRecord) -> str:
    if record.parent_number is None:
        return ""
    return f"; the net stays at version {record.parent_number}"
