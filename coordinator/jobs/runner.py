"""Runs transplant jobs as Ray actors, and again after the death of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import structlog
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from rootstock.common.errors import RootstockError, TransplantError, UnreachableError
from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.jobs.actor import TransplantActor
from rootstock.coordinator.jobs.inspection import Inspection, InspectionJob, inspect
from rootstock.coordinator.jobs.local_ray import LocalRay
from rootstock.coordinator.jobs.model import JobResult, Progress, TransplantJob
from rootstock.coordinator.jobs.probe import ProbeJob, ProbeResult, probe
from rootstock.coordinator.jobs.probe_checks import PROBE_IMAGES
from rootstock.coordinator.jobs.turns import Turns

log = structlog.get_logger("jobs")

PROBE_ATTEMPTS = 2
"""How often a probe is run whose process dies."""


OnJobProgress = Callable[[Progress], None]


class JobRunner(LocalRay):
    """Gives every job an actor of its own, frees it afterwards, and replaces one that dies.

    When Ray stops, running jobs are cut at their last checkpoint.
    """

    def __init__(self, config: JobsConfig) -> None:
        super().__init__(config)
        self._probing = Turns()

    async def run(
        self, job: TransplantJob, on_progress: OnJobProgress = lambda _: None
    ) -> JobResult:
        """Run a job to its end.

        A job that ran before, here or in an earlier process, goes on from its last checkpoint;
        one that had ended gives its result at once. Cancelling frees the actor. `on_progress` is
        called in the event loop after every checkpoint, and must be quick.

        Raises what the job itself raised, and TransplantError if its process died more than
        `max_restarts` times.
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
                log.warning("job.process_died", merge=job.merge_id, deaths=deaths, reason=reason)

    async def inspect(self, job: InspectionJob) -> Inspection:
        """Run a join on synthetic images.

        Raises what it raised, TransplantError if its process died, UnreachableError if Ray fails.
        """
        config, what = self._config, f"merge {job.merge_id}"
        remote: Any = ray.remote(num_cpus=config.num_cpus, max_retries=config.max_restarts)(inspect)
        try:
            with _failures(what, "inspection"):
                answer = await remote.remote(job.canonical(), max(1, int(config.num_cpus)))
        except WorkerCrashedError as error:
            raise TransplantError(
                f"{what}: the process of its inspection died {config.max_restarts + 1} times "
                f"(jobs.max_restarts = {config.max_restarts}); give it more memory and start it "
                "again"
            ) from error
        return Inspection.model_validate_json(answer)

    async def probe(self, job: ProbeJob) -> ProbeResult:
        """Run a teacher net on synthetic images, for at most `job.seconds`.

        It takes no CPU of those that jobs share, or every admission would wait for their end; one
        runs at a time instead, and sites take turns. Raises what the probe raised, and
        UnreachableError, which is no word against the net, if its process died twice, for want of
        memory say.
        """
        what = f"submission {job.submission_id}"
        async with self._probing.of(job.manifest.site):
            for attempt in range(1, PROBE_ATTEMPTS + 1):
                try:
                    answer = await self._within(job.seconds, job.canonical(), what)
                    return ProbeResult.model_validate_json(answer)
                except TimeoutError:
                    return ProbeResult(
                        refusal=f"probe: {PROBE_IMAGES} synthetic images took longer than "
                        f"{job.seconds:g} s (admission.probe_seconds); ship a smaller net, or "
                        "have the operator raise that"
                    )
                except (WorkerCrashedError, OutOfMemoryError, MemoryError) as error:
                    reason = str(error).strip().splitlines()[0] if str(error).strip() else "memory"
                    log.error("probe.process_died", of=what, attempt=attempt, reason=reason[:500])
        raise UnreachableError(
            f"{what}: the process of its probe died {PROBE_ATTEMPTS} times on this machine; it "
            "waits and is tried again: give the coordinator more memory"
        )

    async def _within(self, seconds: float, job: bytes, what: str) -> bytes:
        """Run a probe's function, once; TimeoutError, and its process is killed, if it is late."""
        remote: Any = ray.remote(num_cpus=0, max_retries=0)(probe)
        reference = remote.remote(job, max(1, int(self._config.num_cpus)))
        try:
            with _failures(what, "probe"):
                async with asyncio.timeout(seconds):
                    answer: bytes = await _unless_memory_lacks(reference)
        except (TimeoutError, asyncio.CancelledError):
            ray.cancel(reference, force=True)
            raise
        return answer

    async def _attempt(self, job: TransplantJob, on_progress: OnJobProgress) -> JobResult:
        cpus, gpus = self._config.num_cpus, self._config.num_gpus
        # Ray would restart an actor without its job: `run` makes a new one instead.
        actor_class: Any = ray.remote(max_restarts=0, max_task_retries=0)(TransplantActor)
        actor = actor_class.options(num_cpus=cpus, num_gpus=gpus).remote()
        try:
            await actor.open.remote(job.canonical(), max(1, int(cpus)), gpus)
            done = False
            while not done:
                progress = Progress.model_validate_json(await actor.advance.remote())
                on_progress(progress)
                done = progress.done
            return JobResult.model_validate_json(await actor.result.remote())
        except RayTaskError as error:
            raise _cause(f"merge {job.merge_id}", "job", error) from error
        finally:
            # An idle actor would hold its memory, on a GPU too.
            ray.kill(actor)


async def _unless_memory_lacks(reference: Any) -> Any:
    """Await what a task returns; MemoryError where its code failed for want of memory."""
    try:
        return await reference
    except RayTaskError as error:
        if lacks_memory(error.cause):
            raise MemoryError(str(error.cause)) from error
        raise


@contextmanager
def _failures(of: str, what: str) -> Iterator[None]:
    """Raise what a task of Ray's raised, as an error of ours; UnreachableError if Ray fails."""
    try:
        yield
    except RayTaskError as error:
        raise _cause(of, what, error) from error
    except (LocalRayletDiedError, NodeDiedError, RaySystemError) as error:
        raise UnreachableError(
            f"{of}: Ray has failed ({error}); its {what} is tried again"
        ) from error


def lacks_memory(cause: BaseException) -> bool:
    """Say whether code failed for want of memory; PyTorch has no error of its own for that."""
    return isinstance(cause, MemoryError) or "can't allocate memory" in str(cause)


def _cause(of: str, what: str, error: RayTaskError) -> RootstockError:
    """Return what a Ray task raised, as an error of ours."""
    if isinstance(error.cause, RootstockError):
        return error.cause
    # A fault of the code, or weights that provoke one: this merge fails, and no other.
    log.error("job.failed", of=of, what=what, exc_info=error)
    return TransplantError(
        f"{of}: its {what} failed with {error.cause!r}; the coordinator's log has the traceback"
    )
