"""The Ray actor around a `TransplantWorker`: JSON in, JSON out, threads and device set."""

from __future__ import annotations

import os

import torch

from rootstock.common.heap import keep_tensors
from rootstock.coordinator.jobs.model import TransplantJob
from rootstock.coordinator.jobs.worker import TransplantWorker


class TransplantActor:
    """One process with one job.

    There is no constructor: Ray reports an error raised there as the actor's death, and a
    broken job must not look like a killed process.
    """

    _worker: TransplantWorker

    def open(self, job: bytes, threads: int, gpus: float) -> None:
        """Resume a `TransplantJob`, as JSON, where its last checkpoint left it.

        Torch's threads are as many as the actor has CPUs, so that actors do not crowd each other,
        and the same on every attempt, so that results are bit-identical. Below one GPU, `gpus` is
        the share of its memory that the process may take.
        """
        torch.set_num_threads(threads)
        keep_tensors()  # the process has nothing else to do
        device = torch.device("cpu")
        if gpus > 0:
            # Same inputs, same bits: on a GPU only with cuBLAS's fixed workspace and without the
            # kernels that add in any order. To be set before CUDA starts in this process.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False
            device = torch.device("cuda", 0)  # Ray shows a process only the GPUs it was given
            if gpus < 1:
                # Ray counts GPUs, it does not divide them: without a cap one job takes it all.
                torch.cuda.set_per_process_memory_fraction(gpus, device)
        self._worker = TransplantWorker(TransplantJob.parse(job, what="job"), device)

    def advance(self) -> bytes:
        """Do the next piece of work; returns `Progress` as JSON."""
        return self._worker.advance().canonical()

    def result(self) -> bytes:
        """Return `JobResult` as JSON."""
        return self._worker.result().canonical()
