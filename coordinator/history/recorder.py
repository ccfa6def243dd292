"""Logs finished merges to the history; a record is gathered from registry and store alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import structlog

from rootstock.common.errors import RootstockError, SchemaError
from rootstock.common.failpoints import failpoint
from rootstock.common.nets.spec import Setting
from rootstock.common.nets.tailored import resnet as tailored_resnet
from rootstock.common.nets.tailored.paths import name_of
from rootstock.common.times import instant
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.config import StateConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.history.files import remove_scratch
from rootstock.coordinator.history.mlflow_history import History
from rootstock.coordinator.history.record import Join, MergeRecord, Tailored
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.jobs.inspection import Inspection
from rootstock.coordinator.jobs.model import JobResult
from rootstock.coordinator.merges.result import stored_result
from rootstock.coordinator.net.objects import submitted
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import Merge, MergeState, NetVersion, Registry, Submission
from rootstock.coordinator.registry.wait import RESYNC_SECONDS, setting, woken

T = TypeVar("T")


FIRST_PAUSE_SECONDS = 0.5
"""Before what has failed is tried for the second time."""


class Recorder:
    """Logs finished merges to MLflow, each once, in the order in which they ended.

    MLflow is a view: whatever goes wrong with it is kept in `state`, and is tried again for as long
    as it takes. The coordinator serves on meanwhile.
    """

    def __init__(self, context: CoordinatorContext, history: History) -> None:
        self._context = context
        # Its own: it goes through old versions while the context's remembers the head.
        self._net = NetReader(context.registry, context.store)
        self._history = history
        self._connected = False
        self._news = asyncio.Event()
        self._log = structlog.get_logger("history")
        self.state = HistoryState()

    async def run(self) -> None:
        """Log merges as they end, until cancelled; wakes when a merge changes."""
        registry, config = self._context.registry, self._context.config.history
        remove_scratch(StatePaths(self._context.config).history)
        started, failures = time.monotonic(), 0
        with setting(self._news, registry, lambda change: bool(change.ids)):
            while True:
                self._news.clear()
                try:
                    await self.log_all()
                except Exception as error:  # noqa: BLE001  # a supervisor: the log has the traceback
                    failures += 1
                    pause = min(
                        FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 32), config.retry_seconds
                    )
                    if not self.state.name and time.monotonic() - started < config.wait_seconds:
                        pause = FIRST_PAUSE_SECONDS  # it comes up
                    self._failed(error, pause)
                    await asyncio.sleep(pause)
                else:
                    failures = 0
                    self.state = replace(self.state, error="", since=0.0)
                    await woken(self._news, RESYNC_SECONDS)

    async def log_all(self) -> None:
        """Log every finished merge that MLflow has not seen.

        What keeps one merge from being logged is raised after those behind it, unless MLflow cannot
        be written at all: that is tried first, at the start and after each failure.
        """
        failed: Exception | None = None
        await self._connect()
        for merge_id in await asyncio.to_thread(self._context.registry.merges.unlogged):
            await self._connect()
            try:
                await in_daemon_thread(self._record, merge_id)
            except Exception as error:  # noqa: BLE001  # raised below, after the others
                self._connected = False
                self._log.warning("history.not_logged", merge=merge_id, error=str(error))
                failed = failed or error
        if failed is not None:
            raise failed

    async def _connect(self) -> None:
        if self._connected:
            return
        name, experiment_id = namespace = await in_daemon_thread(self._history.connect)
        self._connected = True
        page = self._history.page(namespace)
        if name not in (self.state.name, self._context.config.net):
            self._log.warning(
                "history.branched_off",
                name=name,
                reason=f"an experiment or a model '{self._context.config.net}' is another's there; "
                f"this net is '{name}'. What was logged before, if anything, comes with `rootstock "
                "coordinator history rebuild`",
            )
        self.state = replace(self.state, name=name, experiment_id=experiment_id, page=page)

    def _failed(self, error: Exception, pause: float) -> None:
        """Keep why merges wait; log it where it is news."""
        ours = isinstance(error, RootstockError)
        text = str(error)
        if not ours:
            text = f"a fault of the coordinator, {type(error).__name__}: {error}; see its log"
        if text != self.state.error:
            trace = None if ours else error
            self._log.warning("history.retry_scheduled", seconds=pause, error=text, exc_info=trace)
        self.state = replace(self.state, error=text, since=self.state.since or time.time())

    def _record(self, merge_id: str) -> None:
        registry = self._context.registry
        merge = registry.merges.get(merge_id)
        self._history.log_merge(gather(self._net, self._context.config, merge))
        show_head(registry, self._history)
        failpoint("history.written")
        # Last: a merge counts as logged when the aliases follow it, too.
        registry.merges.logged(merge.id, merge.state)


async def in_daemon_thread(function: Callable[..., T], *arguments: object) -> T:
    """Run what may hang for minutes in a thread that the process does not wait for at its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # the function's own

    def run() -> None:
        result, error = None, None
        try:
            result = function(*arguments)
        except BaseException as raised:  # noqa: BLE001  # it is raised where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop has ended, and whoever waited
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="history", daemon=True).start()
    return await future


def show_head(registry: Registry, history: History) -> None:
    """Let the history's aliases name the registry's head and its parent."""
    versions = registry.versions
    head = versions.head()
    parent = versions.get(head.parent) if head and head.parent else None
    history.show_head(head.digest if head else None, parent.digest if parent else None)


def gather(net: NetReader, config: StateConfig, merge: Merge) -> MergeRecord:
    """Put a finished merge's record together from registry and store; needs no MLflow."""
    registry = net.registry
    submission = registry.submissions.get(merge.submission_id)
    manifest = submitted(submission)
    parameters: dict[str, Setting] = {}
    result: JobResult | None = None
    try:
        learned = stored_result(merge)
        result = learned if isinstance(learned, JobResult) else None
    except SchemaError as error:  # costs the details, not the record
        parameters["unreadable_result"] = str(error)
    version = registry.versions.get(merge.net_version) if merge.net_version else None
    before = version.parent if version else merge.parent_version
    parent = registry.versions.get(before) if before else None
    shown = version or parent
    tree = net.tree_of(shown) if shown else None
    digests = _digests(submission, manifest, merge.task, result)
    adapter_uri = None
    if version is not None and tree is not None:
        digests |= {"net_version": version.digest, "tree": version.tree}
        adapter = tree.edge(merge.category, merge.task).adapter
        if adapter is not None:
            digests["adapter"] = adapter.blob.digest
            adapter_uri = f"{StatePaths(config).artifacts}#sha256:{adapter.blob.digest}"
    parameters |= {
        "recipe": manifest.recipe.name,
        "architecture": manifest.architecture.name,
        "split": manifest.architecture.split,
    }
    if (extractor := manifest.architecture.extractor) is not None:
        parameters |= {"extractor": extractor.name, "extractor_split": extractor.split}
        parameters |= {f"extractor.{name}": value for name, value in extractor.settings.items()}
    numbers = merge.numbers.flat()
    if "samples/validation" in manifest.metrics:
        numbers["validation_samples"] = manifest.metrics["samples/validation"]
    if result is not None:
        parameters |= {f"distillation.{name}": value for name, value in result.settings.items()}
        parameters |= result.learned_by()
        numbers |= result.report
    inspection = Inspection.model_validate(merge.inspection) if merge.inspection else None
    return MergeRecord(
        net=config.net,
        merge_id=merge.id,
        category=merge.category,
        task=merge.task,
        site=submission.site,
        operation=merge.operation,
        state=merge.state,
        reason=merge.reason,
        parent_number=parent.number if parent else None,
        parent_digest=parent.digest if parent else None,
        number=version.number if version else None,
        digest=version.digest if version else None,
        digests=digests,
        adapter_uri=adapter_uri,
        candidate=merge.candidate,
        parameters=parameters,
        numbers=numbers,
        teacher_numbers=manifest.metrics,
        tailored=_tailored(manifest),
        features=inspection.features if inspection else None,
        no_features=inspection.no_features if inspection else "",
        curves=result.curves if result else (),
        created_at=instant(merge.created_at),
        finished_at=instant(merge.finished_at) if merge.finished_at else None,
        tree=tree,
        earlier=_earlier(net, merge, shown) if shown else (),
    )


def _earlier(net: NetReader, merge: Merge, version: NetVersion) -> tuple[Join, ...]:
    """Return every join of a net version but the merge's own, with its teacher's error."""
    merged = net.registry.merges.all(MergeState.MERGED, MergeState.ROLLED_BACK)
    teachers = {
        (each.category, each.task): each.numbers.teacher_error
        for each in merged
        if each.net_version is not None and each.net_version <= version.number
    }
    return tuple(
        Join(
            category=edge.category,
            task=edge.task,
            error=edge.error,
            teacher_error=teachers.get((edge.category, edge.task)),
        )
        for edge in net.tree_of(version).edges
        if (edge.category, edge.task) != (merge.category, merge.task)
    )


def _tailored(manifest: TeacherManifest) -> Tailored | None:
    """Return which paths a tailored category module kept, with α as the lab says it.

    α of a path that the lab does not name, or that no softmax can give, is 0: it is drawn thin.
    """
    extractor = manifest.architecture.extractor
    if extractor is None or extractor.name != tailored_resnet.NAME:
        return None
    kept = tailored_resnet.kept_of(extractor)
    paths = []
    for path in kept.paths:
        alpha = manifest.metrics.get(f"alpha/{name_of(path, kept.blocks)}", 0.0)
        paths.append((path.target, path.skip, alpha if 0 <= alpha <= 1 else 0.0))
    return Tailored(blocks=kept.blocks, paths=tuple(paths))


def _digests(
    submission: Submission, manifest: TeacherManifest, task: str, result: JobResult | None
) -> dict[str, str]:
    """Return what a merge was made from and what it learned, by role."""
    digests = {
        "manifest": submission.manifest_digest,
        "category_module": manifest.category_module.digest,
    }
    if task in manifest.task_modules:  # a join on the operator's samples brings none
        digests["teacher_task_module"] = manifest.task_modules[task].digest
    if manifest.shared_samples is not None:
        digests["shared_samples"] = manifest.shared_samples.blob.digest
    if result is not None:
        digests |= {
            f"{name}_adapter": adapter.blob.digest for name, adapter in result.adapters().items()
        }
    return digests
