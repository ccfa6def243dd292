"""Runs transplant jobs as Ray actors and sees them through the death of a process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from rootstock.common.errors import RootstockError, TransplantError
from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.jobs.actor import remote_class
from rootstock.coordinator.jobs.local_ray import LocalRay
from rootstock.coordinator.jobs.model import JobResult, Progress, TransplantJob

log = logging.getLogger(__name__)


def _unwatched(progress: Progress) -> None:
    pass


class JobRunner:
    """Gives every job an actor of its own, frees it afterwards, and replaces one that dies."""

    def __init__(self, config: JobsConfig) -> None:
        self._config = config
        self._ray = LocalRay(config)

    def start(self) -> None:
        """Start Ray or join it; before any gRPC server of this process. See `LocalRay.start`."""
        self._ray.start()

    def stop(self) -> None:
        """Leave Ray; jobs that run are cut at their last checkpoint."""
        self._ray.stop()

    async def run(
        self, job: TransplantJob, on_progress: Callable[[Progress], None] = _unwatched
    ) -> JobResult:
        """Run a job to its end.

        A job that ran before, here or in an earlier process, goes on from its last checkpoint;
        one that had ended gives its result at once. Cancelling frees the actor.

        Parameters
        ----------
        job
            What to do.
        on_progress
            Called in the event loop after every checkpoint; must be quick.

        Raises
        ------
        RootstockError
            What the job itself raised: a missing blob, an unknown layer, a full disk.
        TransplantError
            If its process died more than `max_restarts` times.
        """
        deaths = 0
        while True:
            try:
                return await self._attempt(job, on_progress)
            except RayActorError as error:
                deaths += 1
                reason = str(error).strip().splitlines()[0]
                if deaths > self._config.max_restarts:
                    raise TransplantError(
                        f"merge {job.merge_id}: the process of its job died {deaths} times "
                        f"(jobs.max_restarts = {self._config.max_restarts}), at last: {reason}; "
                        "give it more memory (num_cpus, num_gpus) and start the merge again"
                    ) from error
                log.warning("merge %s: its process died, going on: %s", job.merge_id, reason)

    async def _attempt(
        self, job: TransplantJob, on_progress: Callable[[Progress], None]
    ) -> JobResult:
        cpus, gpus = self._config.num_cpus, self._config.num_gpus
        actor: Any = remote_class(ray).options(num_cpus=cpus, num_gpus=gpus).remote()
        try:
            await actor.open.remote(job.canonical(), max(1, int(cpus)), gpus)
            done = False
            while not done:
                progress = Progress.model_validate_json(await actor.advance.remote())
                on_progress(progress)
                done = progress.done
            return JobResult.model_validate_json(await actor.result.remote())
        except RayTaskError as error:
            if isinstance(error.cause, RootstockError):
                raise error.cause from error
            # A fault of the code, or weights that provoke one: this merge fails, and no other.
            log.exception("merge %s: its job failed", job.merge_id)
            raise TransplantError(
                f"merge {job.merge_id}: its job failed with {error.cause!r}; the coordinator's log "
                "has the whole story"
            ) from error
        finally:
            # An idle actor would hold its memory, on a GPU too.
            ray.kill(actor)
