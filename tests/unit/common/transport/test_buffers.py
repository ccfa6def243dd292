import platform

from rootstock.common.transport.chunks import keep_chunk_buffers


def test_glibc_takes_the_settings() -> None:
    assert keep_chunk_buffers() == (platform.libc_ver()[0] == "glibc")
