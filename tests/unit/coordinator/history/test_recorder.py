from __future__ import annotations

import asyncio
import pathlib

import pytest
from structlog.testing import capture_logs

from rootstock.common.errors import ConflictError, UnreachableError
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nets.tailored.paths import Path
from rootstock.common.nets.tailored.resnet import tailored_spec
from rootstock.coordinator.config import HistoryConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.history.mlflow_history import History
from rootstock.coordinator.history.namespace import Namespace
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.history.recorder import Recorder, gather
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.registry import SubmissionState
from tests.support.coordinator_context import receive, teacher
from tests.support.merges import merge_runner


class PickyHistory(History):
    """Refuses one merge for good, as MLflow does when somebody has deleted its run."""

    def __init__(self, refused: str, *, away: bool = False) -> None:
        server = HistoryConfig(mlflow_uri="http://127.0.0.1:9")
        super().__init__(server, "digits", "key", pathlib.Path("nowhere"))
        self._refused = refused
        self.away = away

    def connect(self) -> Namespace:
        if self.away:
            raise UnreachableError("MLflow does not answer")
        return Namespace("digits", "1")

    def log_merge(self, record: MergeRecord) -> str:
        if record.merge_id == self._refused:
            raise ConflictError(f"MLflow refused merge {record.merge_id}")
        return f"run of {record.merge_id}"

    def show_head(self, head: str | None, parent: str | None) -> None:
        assert (head, parent) == (None, None)  # nothing was merged


def test_a_merge_that_cannot_be_logged_holds_up_no_other(context: CoordinatorContext) -> None:
    registry = context.registry
    for category in ("cat", "dog"):
        submission = receive(context, teacher(context, f"{category}-lab", category))
        registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        context.fail_all(registry.submissions.get(submission), "no")
    cat, dog = registry.merges.unlogged()
    with pytest.raises(ConflictError, match=cat):
        asyncio.run(Recorder(context, PickyHistory(cat)).log_all())
    assert [cat] == registry.merges.unlogged()
    assert registry.merges.get(dog).logged


def test_nothing_is_logged_before_mlflow_has_answered(context: CoordinatorContext) -> None:
    submission = receive(context, teacher(context, "cat-lab", "cat"))
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    context.fail_all(context.registry.submissions.get(submission), "no")
    history = PickyHistory("", away=True)

    async def log() -> tuple[HistoryState, HistoryState]:
        recorder = Recorder(context, history)
        logging = asyncio.create_task(recorder.run())
        while not recorder.state.error:
            await asyncio.sleep(0.01)
        before = recorder.state
        assert len(context.registry.merges.unlogged()) == 1
        history.away = False
        while recorder.state.error:
            await asyncio.sleep(0.01)
        logging.cancel()
        return before, recorder.state

    before, after = asyncio.run(log())
    assert (before.name, before.error) == ("", "MLflow does not answer")
    assert before.since > 0
    assert (after.name, after.error, after.since) == ("digits", "", 0)
    assert context.registry.merges.unlogged() == []


def test_what_was_not_merged_names_the_version_that_it_was_held_against(
    context: CoordinatorContext,
) -> None:
    registry = context.registry
    for category in ("cat", "dog"):
        submission = receive(context, teacher(context, f"{category}-lab", category))
        registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        if category == "cat":
            merge = registry.merges.create(submission, "cat", "classification", OperationKind.FOUND)
            runner = merge_runner(context)
            asyncio.run(runner.carry(merge.id))
    context.fail_all(registry.submissions.get(submission), "no")
    founding, failed = (
        gather(context.net, context.config, merge) for merge in registry.merges.all()
    )
    assert (founding.parent_number, founding.number) == (None, 1)
    assert (failed.parent_number, failed.number) == (1, None)
    assert failed.parent_digest == founding.digest
    assert failed.tree == founding.tree
    assert [join.category for join in failed.earlier] == ["cat"]
    assert "net_version" not in failed.digests


def test_a_record_names_the_extractor_if_it_is_not_the_plan_s(context: CoordinatorContext) -> None:
    plan = context.plan
    extractor = ArchitectureSpec(name="small-vgg", settings={"width": 6}, split="pool1")
    for category, own in (("cat", None), ("dog", extractor)):
        spec = plan.architecture.model_copy(update={"extractor": own})
        manifest = teacher(context, f"{category}-lab", category)
        manifest = manifest.model_copy(update={"architecture": spec})
        submission = receive(context, manifest)
        context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        context.fail_all(context.registry.submissions.get(submission), "no")
    plain, other = (
        gather(context.net, context.config, merge).parameters
        for merge in context.registry.merges.all()
    )
    assert (plain["architecture"], plain["split"]) == ("small-vgg", "pool1")
    assert other == plain | {
        "extractor": "small-vgg",
        "extractor_split": "pool1",
        "extractor.width": 6,
    }


def test_a_record_says_which_paths_a_tailored_net_kept(context: CoordinatorContext) -> None:
    backbone = ArchitectureSpec(
        name="small-resnet", settings={"width": 4, "blocks": 1}, split="block2_1"
    )
    extractor = tailored_spec(backbone, [Path(1, 0), Path(1, 1), Path(2, 1)])
    manifest = teacher(context, "cat-lab", "cat")
    spec = manifest.architecture.model_copy(update={"extractor": extractor})
    alphas = {"alpha/block1_1": 0.9, "alpha/proxy1_block1_1": 7.0}  # 7: no softmax gives it
    manifest = manifest.model_copy(
        update={"architecture": spec, "metrics": manifest.metrics | alphas}
    )
    submission = receive(context, manifest)
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    context.fail_all(context.registry.submissions.get(submission), "no")
    (merge,) = context.registry.merges.all()
    record = gather(context.net, context.config, merge)
    assert record.tailored is not None
    assert record.tailored.blocks == ("block1_1", "block2_1")
    assert record.tailored.paths == ((1, 0, 0.9), (1, 1, 0.0), (2, 1, 0.0))
    assert record.teacher_numbers == manifest.metrics


def test_what_is_rolled_back_while_it_is_logged_is_logged_again(
    context: CoordinatorContext,
) -> None:
    submission = receive(context, teacher(context, "cat-lab", "cat"))
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    merge = context.registry.merges.create(submission, "cat", "classification", OperationKind.FOUND)
    asyncio.run(merge_runner(context).carry(merge.id))
    logged: list[str] = []

    class SlowHistory(PickyHistory):
        def log_merge(self, record: MergeRecord) -> str:
            logged.append(record.state)
            if len(logged) == 1:
                context.registry.versions.roll_back(1, "wrong labels")
            return super().log_merge(record)

        def show_head(self, head: str | None, parent: str | None) -> None:
            pass

    async def log() -> None:
        for _ in range(3):
            await Recorder(context, SlowHistory("")).log_all()

    asyncio.run(log())
    assert logged == ["merged", "rolled_back"]


def test_a_fault_of_the_history_itself_is_logged_once_with_its_traceback(
    context: CoordinatorContext,
) -> None:
    submission = receive(context, teacher(context, "cat-lab", "cat"))
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    context.fail_all(context.registry.submissions.get(submission), "no")
    tries: list[str] = []

    class FaultyHistory(PickyHistory):
        def log_merge(self, record: MergeRecord) -> str:
            tries.append(record.merge_id)
            raise ZeroDivisionError("a chart of nothing")

    async def log() -> HistoryState:
        recorder = Recorder(context, FaultyHistory(""))
        logging = asyncio.create_task(recorder.run())
        while len(tries) < 2:
            await asyncio.sleep(0.01)
            assert not logging.done()
        logging.cancel()
        return recorder.state

    with capture_logs() as logs:
        state = asyncio.run(log())
    assert state.error.startswith("a fault of the coordinator, ZeroDivisionError: a chart of")
    traces = [entry["exc_info"] for entry in logs if entry.get("exc_info")]
    assert [type(trace) for trace in traces] == [ZeroDivisionError]
