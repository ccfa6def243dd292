"""Writes the report of a merge: one HTML file that needs nothing else; peers' names are escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from rootstock.common.times import readable
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.history.content import decision, outcome, state_name
from rootstock.coordinator.history.loss_chart import Chart, charts
from rootstock.coordinator.history.record import MergeRecord

_TEACHER = "The lab's own net, g_T(f(I)): what the join is compared with."
_MEANINGS = {
    Candidate.NO_ADAPTER: "The lab's f on the net's g_S as it is. No learning.",
    Candidate.CLOSED_FORM: "An adapter solved for from weights alone, before any learning.",
    Candidate.ZERO_SAMPLE: "An adapter from weights and shipped statistics alone. No image.",
    Candidate.FEW_SAMPLE: "An adapter that also saw the images that the lab chose to share.",
    Candidate.REFINED: "Trained on at the lab, on its private images; only an adapter came back.",
    Candidate.OWN_SAMPLES: "Learned on the operator's own samples, and judged on others of them.",
}

_MEASURES = {
    "residual": (
        "Closed form: residual",
        "‖D′_S − D′_T‖ / ‖D′_T‖. At 0 the net's task module can be the teacher's; near 1 their "
        "units hardly correspond.",
    ),
    "gain": ("Closed form: gain", "The factor that gave features back the size g_S expects."),
    "draws": ("Closed form: draws", "Pseudo-gradients that it rests on."),
    "no_adapter_distance": (
        "Distance without an adapter",
        "Of y_S to y_T, in units of y_T's spread, on images at hand before any learning. 0 is the "
        "teacher, 1 says nothing.",
    ),
    "start_distance": (
        "Distance of the start",
        "The same with the adapter that learning begins with.",
    ),
    "judged_start_distance": (
        "Start, on views kept apart",
        "The same on views that no step of learning saw.",
    ),
    "judged_learned_distance": (
        "Learned, on views kept apart",
        "What was learned is taken unless the start is closer.",
    ),
}

_STAGES = {"zero-sample": "Zero samples", "few-sample": "Few samples"}


class ErrorRow(NamedTuple):
    """One line of the table of errors."""

    label: str
    meaning: str
    error: float
    uncalibrated: float | None
    """Without the scale and bias that the lab sets; None where there is none."""
    kept: bool
    """Whether this is what was joined."""


class Measure(NamedTuple):
    """A number with its meaning."""

    label: str
    value: float
    meaning: str


class StageView(NamedTuple):
    """How one stage went."""

    label: str
    method: str
    fallback: str
    """Why its method was given up for that one; empty where it was not."""
    without: str
    """What the method did without, and why; empty where there was nothing."""
    steps: str
    """How many of what, in words."""
    seconds: float | None
    measures: Sequence[Measure]
    chart: Chart | None


def render(record: MergeRecord, pictures: Mapping[str, bytes]) -> str:
    """Return a merge's report as HTML.

    `pictures` are PNGs by file name, as `write_files` calls them: of the net, of the join's
    features, of what the lab's recipe learned besides weights; each only if there is one.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("rootstock.coordinator.history").joinpath("report.html").read_text(encoding="utf-8")
    )
    errors = error_rows(record)
    return template.render(
        record=record,
        state=state_name(record),
        outcome=outcome(record),
        decision=decision(record),
        error=record.error,
        teacher_error=record.measured.teacher_error,
        validation=int(record.numbers.get("validation_samples", 0)),
        errors=errors,
        calibrated=any(row.uncalibrated not in (None, row.error) for row in errors),
        widest=max((row.error for row in errors), default=0.0) or 1.0,
        stages=stages(record),
        times=times(record),
        pictures={
            Path(name).stem: base64.b64encode(png).decode() for name, png in pictures.items()
        },
    )


def error_rows(record: MergeRecord) -> list[ErrorRow]:
    """Return the errors that were measured, teacher first, then from stage to stage."""
    measured, rows = record.measured, []
    merged = record.number is not None
    if (teacher := measured.teacher_error) is not None:
        kept = merged and record.candidate is None
        rows.append(ErrorRow("teacher", _TEACHER, teacher, None, kept))
    for candidate, error in measured.shown_errors.items():
        meaning = _MEANINGS[candidate]
        if candidate is Candidate.FEW_SAMPLE and measured.few_samples:
            meaning = meaning.replace("the images", f"the {measured.few_samples:.0f} images")
        baseline = candidate is Candidate.NO_ADAPTER
        uncalibrated = None if baseline else measured.candidates[candidate].uncalibrated_error
        kept = merged and candidate is record.candidate
        rows.append(ErrorRow(candidate.label, meaning, error, uncalibrated, kept))
    return rows


def stages(record: MergeRecord) -> list[StageView]:
    """Return the stages in which an adapter was learned; none where nothing had to be."""
    dream = {stage: _dreamed(record, stage) for stage in _STAGES}
    drawn = charts(record.curves, dream)
    views = []
    for stage, label in _STAGES.items():
        key = stage.replace("-", "_")
        if f"{key}_method" not in record.parameters:
            continue
        views.append(
            StageView(
                label=label,
                method=str(record.parameters[f"{key}_method"]),
                fallback=str(record.parameters.get(f"{key}_fallback", "")),
                without=str(record.parameters.get(f"{key}_without", "")),
                steps=_steps([p.step for p in record.curves if p.stage == stage], dream[stage]),
                seconds=record.numbers.get(f"seconds/{stage}"),
                measures=[
                    Measure(name, record.numbers[f"{stage}/{number}"], meaning)
                    for number, (name, meaning) in _MEASURES.items()
                    if f"{stage}/{number}" in record.numbers
                ],
                chart=drawn.get(stage),
            )
        )
    return views


def times(record: MergeRecord) -> list[tuple[str, str]]:
    """Return what took how long, as people read it."""
    rows = [("Submission admitted", readable(record.created_at))]
    if record.finished_at is not None:
        began, ended = map(datetime.fromisoformat, (record.created_at, record.finished_at))
        rows.append((state_name(record), readable(record.finished_at)))
        rows.append(("From one to the other", duration((ended - began).total_seconds())))
    labels = {
        "zero-sample": "Work on the zero-sample adapter",
        "few-sample": "Work on the few-sample adapter",
        "refinement": "Refinement at the lab",
    }
    spent = record.measured.seconds
    return rows + [(label, duration(spent[key])) for key, label in labels.items() if key in spent]


def duration(seconds: float) -> str:
    """Return a time as people read it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _dreamed(record: MergeRecord, stage: str) -> int:
    """Return after how many steps a stage's dream ended; 0 if it had none."""
    method = record.parameters.get(f"{stage.replace('-', '_')}_method")
    dream = record.parameters.get("distillation.dream.steps")
    learning = record.parameters.get("distillation.teaching.steps")
    last = max((point.step for point in record.curves if point.stage == stage), default=0)
    if method not in ("dream", "auto") or not isinstance(dream, int):
        return 0
    return dream if isinstance(learning, int) and last > learning else 0


def _steps(steps: Sequence[int], dream: int) -> str:
    if not steps:
        return "solved, without a step"
    if dream == 0:
        return f"{steps[-1]} steps"
    learning = f"{steps[-1] - dream} steps of learning from the teacher's answers"
    if steps[0] > dream:
        return f"{learning} to the images dreamed before"
    return f"{dream} steps of dreaming images, then {learning} to them"
