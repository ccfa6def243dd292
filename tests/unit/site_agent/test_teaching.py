from pathlib import Path

import pytest

from common.errors import SchemaError
from common.nets.spec import TaskSpec
from site_agent.teaching import require_teachable
from tests.unit.site_agent import support


def test_a_task_that_no_recipe_teaches_is_refused_before_any_training(tmp_path: Path) -> None:
    plan = support.plan(tmp_path)
    require_teachable(plan)
    outline = TaskSpec(name="outline", kind="binary-segmentation")
    wider = plan.model_copy(update={"tasks": (*plan.tasks, outline)})
    with pytest.raises(SchemaError, match=r"'outline' is of kind 'binary-segmentation'.*per image"):
        require_teachable(wider)
