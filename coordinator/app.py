"""The coordinator as one process: its rooms put together, started and stopped in order."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rootstock.common import signals
from rootstock.common.artifacts.local import LocalStore
from rootstock.common.artifacts.uri import open_store
from rootstock.common.files import only_one
from rootstock.common.identity.keys import fingerprint
from rootstock.common.logs import log_to
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.areas import move_samples, sweep_areas
from rootstock.coordinator.garbage.owner import claim_store
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
    """Serve until SIGTERM, SIGINT, or SIGHUP of a terminal that is closed.

    A RootstockError says what stops it at start: a disk that cannot be written, a port in use, a
    folder of samples that is not there. MLflow does not: see `Recorder`.
    """
    log_to(sys.stderr)
    if config.samples.folder is not None:
        categories_in(config.samples.folder)  # later, what cannot be read costs but a warning
    with open_context(config) as context:
        # Of a former process: another coordinator may have that port by now.
        StatePaths(config).address.unlink(missing_ok=True)
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

    ConflictError if another process has it open, if its store is another coordinator's, or if labs
    have seen another plan than the configuration's; NotFoundError if the key that labs know is
    missing; StorageError if the database is damaged, or is an older one than the log's head.
    """
    paths = StatePaths(config)
    with only_one(paths.state, "coordinator"):
        key = signing_key(paths)
        registry = Registry(paths.database)
        try:
            registry.check()
            store = open_store(paths.artifacts, paths.cache, began=paths.plan.exists())
            if isinstance(store, LocalStore):
                store.make_private()
            claim_store(store, key.public_key, paths.artifacts)
            plan = publish_plan(config, store, paths.plan)
            move_samples(registry, store, plan.content_digest())
            sweep_areas(registry, store)
            context = CoordinatorContext(
                registry=registry, store=store, plan=plan, key=key, config=config
            )
            context.log.check()
            registry.subscribe(context.log.keep)
            yield context
        finally:
            registry.close()


async def _serve(context: CoordinatorContext, runner: JobRunner) -> None:
    # Python's default is six threads on two cores: as many slow commits to a remote store would
    # then hold up every signature check, and with it every call.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    config = context.config
    paths = StatePaths(config)
    key = fingerprint(context.key.public_key)
    recorder = Recorder(context, History(config.history, config.net, key, paths.history))
    committer = Committer(context)
    server = CoordinatorServer(context, committer, lambda: recorder.state)
    await server.start()
    reconciler = Reconciler(
        context,
        MergeRunner(context, committer, runner),
        HeadsFile(paths.heads),
        config.history.retry_seconds,
    )
    stop = asyncio.Event()
    for number in signals.ending():
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    work = (reconciler.run(), recorder.run(), runner.watch())
    for_ever = [asyncio.create_task(each) for each in work]
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({stopped, *for_ever}, return_when=asyncio.FIRST_COMPLETED)
        for task in for_ever:
            if task.done():
                task.result()
    finally:
        for task in for_ever:
            task.cancel()
        # Waited for, not awaited: a fault of the work must not keep the server from draining.
        await asyncio.wait(for_ever)
        await server.drain()
