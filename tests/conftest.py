"""For all tests, and for the processes that they start."""

from __future__ import annotations

import os

import pytest

# The nets here are small: one thread is as fast on idle cores, and on busy ones torch's threads
# wait for each other, up to ten times as long. Set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

pytest.register_assert_rewrite("tests.support")
