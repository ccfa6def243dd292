"""The coordinator as one process: its rooms put together, started and stopped in order."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rootstock.common.artifacts.uri import open_store
from rootstock.common.errors import UnreachableError
from rootstock.common.files import only_one
from rootstock.common.logs import log_to
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.areas import move_samples, sweep_areas
from rootstock.coordinator.history.mlflow_history import History
from rootstock.coordinator.history.recorder import Recorder
from rootstock.coordinator.identity.authority import signing_key
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.merges.own_samples import categories_in
from rootstock.coordinator.merges.reconciler import Reconciler
from rootstock.coordinator.merges.runner import MergeRunner
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.heads import HeadsFile
from rootstock.coordinator.plan.publish import publish_plan
from rootstock.coordinator.registry import Registry
from rootstock.coordinator.service.server import CoordinatorServer

THREADS = 32
"""Threads for what blocks: the database, the store, MLflow. The registry has connections for
more."""


def run_coordinator(config: CoordinatorConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    A RootstockError says what stops it at start: a disk that cannot be written, a port in use, a
    folder of samples that is not there.
    """
    log_to(sys.stderr)
    if config.samples.folder is not None:
        categories_in(config.samples.folder)  # later, what cannot be read costs but a warning
    with open_context(config) as context:
        runner = JobRunner(config.jobs)
        # Ray starts processes: it must do so before gRPC has started threads.
        runner.start()
        try:
            asyncio.run(_serve(context, runner))
        finally:
            runner.stop()


@contextmanager
def open_context(config: CoordinatorConfig) -> Iterator[CoordinatorContext]:
    """Open a coordinator's state as its only writer: database, store, plan and key.

    ConflictError if another process has it open, or labs have seen another plan than the
    configuration's; NotFoundError if the key that labs know is missing.
    """
    paths = StatePaths(config)
    with only_one(paths.state, "coordinator"):
        key = signing_key(paths)
        registry = Registry(paths.database)
        try:
            store = open_store(paths.artifacts, paths.cache, began=paths.plan.exists())
            plan = publish_plan(config, store, paths.plan)
            move_samples(registry, store, plan.content_digest())
            sweep_areas(registry, store)
            yield CoordinatorContext(
                registry=registry, store=store, plan=plan, key=key, config=config
            )
        finally:
            registry.close()


async def _serve(context: CoordinatorContext, runner: JobRunner) -> None:
    # Python's default is six threads on two cores: as many slow commits to a remote store would
    # then hold up every signature check, and with it every call.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    config = context.config
    history = History(config.history.mlflow_uri, config.net)
    experiment: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    committer = Committer(context)
    server = CoordinatorServer(
        context, committer, lambda: experiment.result() if experiment.done() else ""
    )
    await server.start()
    reconciler = Reconciler(
        context,
        MergeRunner(context, committer, runner),
        Recorder(context, history, experiment),
        HeadsFile(StatePaths(config).heads),
        config.history.retry_seconds,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    reached = asyncio.create_task(_reach(history, experiment, config.history.wait_seconds))
    # MLflow has its time to come up; labs ship and merges go on in the meantime.
    for_ever = [asyncio.create_task(each) for each in (reconciler.run(), runner.watch())]
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({reached, stopped, *for_ever}, return_when=asyncio.FIRST_COMPLETED)
        if reached.done():
            reached.result()
            await asyncio.wait({stopped, *for_ever}, return_when=asyncio.FIRST_COMPLETED)
        for task in for_ever:
            if task.done():
                task.result()
    finally:
        for task in (reached, *for_ever):
            task.cancel()
        # Waited for, not awaited: a fault of the work must not keep the server from draining.
        await asyncio.wait({reached, *for_ever})
        await server.drain()


async def _reach(history: History, experiment: asyncio.Future[str], wait_seconds: float) -> None:
    """Wait until MLflow answers, and say which experiment is the net's."""
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        try:
            await asyncio.to_thread(history.check)
            experiment.set_result(await asyncio.to_thread(history.ensure_experiment))
            return
        except UnreachableError:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(0.5)
