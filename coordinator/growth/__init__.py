"""Growth: which operation a submission calls for, acceptance, the next net version. Pure."""

from __future__ import annotations

from rootstock.coordinator.growth.acceptance import (
    CANDIDATES,
    Verdict,
    acceptance,
    as_it_came,
    error_key,
)
from rootstock.coordinator.growth.operations import (
    BRINGING,
    Connect,
    Found,
    LearnTask,
    NewCategory,
    NewTask,
    Operation,
    Refusal,
    Underway,
    decide,
)
from rootstock.coordinator.growth.planning import GrowthPlan, Planned, Unplanned, plan_growth
from rootstock.coordinator.growth.version import category_ref, grown, task_ref

__all__ = [
    "BRINGING",
    "CANDIDATES",
    "Connect",
    "Found",
    "GrowthPlan",
    "LearnTask",
    "NewCategory",
    "NewTask",
    "Operation",
    "Planned",
    "Refusal",
    "Underway",
    "Unplanned",
    "Verdict",
    "acceptance",
    "as_it_came",
    "category_ref",
    "decide",
    "error_key",
    "grown",
    "plan_growth",
    "task_ref",
]
