"""glibc takes the settings, and gives back what tensors held."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from rootstock.common.heap import keep_chunk_buffers, keep_tensors, share_heaps, tensors_kept

GLIBC = platform.libc_ver()[0] == "glibc"


def test_glibc_takes_the_settings() -> None:
    with tensors_kept():
        assert keep_tensors() == GLIBC
    assert (keep_chunk_buffers(), share_heaps()) == (GLIBC, GLIBC)


@pytest.mark.skipif(not GLIBC, reason="other C libraries take no settings")
def test_a_large_tensor_s_pages_are_zeroed_once() -> None:
    """Within; page faults count what the kernel zeroes."""

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(8 << 20)  # 32 MiB: 8,192 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_chunk_buffers()
    outside = faults()
    with tensors_kept():
        torch.ones(8 << 20)
        within = faults()
    assert within < 0.8 * outside  # small allocations between may part what was freed
    assert faults() > within  # and they were given back
