"""What was learned for a merge is read whatever version wrote it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from rootstock.common.errors import SchemaError
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.history.recorder import gather
from rootstock.coordinator.jobs.model import JobResult
from rootstock.coordinator.merges.result import OperatorJoin, stored_result
from rootstock.coordinator.registry import Merge, MergeState
from tests.support.merges import evaluating, merge_runner, report, with_policy

pytestmark = pytest.mark.slow

STORED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "stored_before_kinds.json").read_text(encoding="utf-8")
)


@pytest.fixture
def merge(context: CoordinatorContext, tmp_path: Path) -> Merge:
    return evaluating(context, tmp_path)


def kept(merge: Merge, result: dict[str, Any]) -> Merge:
    return dataclasses.replace(merge, job_result=result)


def nested(result: dict[str, Any]) -> dict[str, Any]:
    """Return a job's result as it was stored when it had no kind and held a configuration."""
    settings: dict[str, Any] = {}
    for key, value in result["settings"].items():
        table, _, name = key.rpartition(".")
        (settings.setdefault(table, {}) if table else settings)[name] = value
    left = {key: value for key, value in result.items() if key not in ("kind", "format")}
    return left | {"settings": settings}


def test_a_job_s_result_without_a_kind_is_one(merge: Merge) -> None:
    stored = STORED["job_result"]
    result = stored_result(kept(merge, stored))
    assert isinstance(result, JobResult)
    assert (result.format, result.turn) == (1, 2)
    assert list(result.adapters()) == [Candidate.CLOSED_FORM, Candidate.ZERO_SAMPLE]
    assert result.settings["dream.images"] == 96
    again = nested(result.model_dump(mode="json"))
    assert again == stored
    assert stored_result(kept(merge, result.model_dump(mode="json"))) == result


def test_an_operator_s_join_without_a_kind_is_one(merge: Merge) -> None:
    stored = STORED["operator_join"]
    result = stored_result(kept(merge, stored))
    assert isinstance(result, OperatorJoin)
    assert result.model_dump(mode="json") == {**stored, "kind": "operator", "format": 1}


def test_what_another_version_adds_is_left_out(merge: Merge) -> None:
    assert merge.job_result is not None
    (point,) = STORED["job_result"]["curves"][:1]
    newer = {
        **merge.job_result,
        "format": 7,
        "mood": "fine",
        "curves": [{**point, "validation_loss": 0.5}],
        "settings": {**merge.job_result["settings"], "dream.colours": 3},
    }
    result = stored_result(kept(merge, newer))
    assert isinstance(result, JobResult)
    assert (result.format, result.settings["dream.colours"]) == (7, 3)
    assert "mood" not in result.model_dump()


def test_an_open_merge_of_settings_that_are_no_more_goes_to_its_end(
    context: CoordinatorContext, merge: Merge
) -> None:
    assert merge.job_result is not None
    stored = nested(merge.job_result)
    stored["settings"]["temperature"] = 0.5
    stored["settings"]["dream"]["colours"] = 3
    context.registry.merges.update(merge.id, job_result=stored)
    report(context, merge)
    generous = with_policy(context, max_error=100.0, max_above_teacher=100.0)
    asyncio.run(merge_runner(generous).carry(merge.id))
    merge = context.registry.merges.get(merge.id)
    assert merge.state is MergeState.MERGED
    # Its history can be made again as well.
    parameters = gather(context.net, context.config, merge).parameters
    assert parameters["distillation.temperature"] == 0.5
    assert parameters["distillation.dream.colours"] == 3
    assert parameters["zero_sample_method"] == "closed-form"


@pytest.mark.parametrize(
    ("change", "rule"),
    [({"kind": "dreamed"}, "kind"), ({"student_task_module": None}, "student_task_module")],
)
def test_what_cannot_be_read_fails_its_merge_with_the_key(
    context: CoordinatorContext, merge: Merge, change: dict[str, Any], rule: str
) -> None:
    stored = {**(merge.job_result or {}), **change}
    with pytest.raises(SchemaError, match=f"merge {merge.id}: .*{rule}"):
        stored_result(kept(merge, stored))
    context.registry.merges.update(merge.id, job_result=stored)
    asyncio.run(merge_runner(context).carry(merge.id))
    ended = context.registry.merges.get(merge.id)
    assert ended.state is MergeState.FAILED
    assert rule in ended.reason
    shown = gather(context.net, context.config, ended)
    assert rule in str(shown.parameters["unreadable_result"])
