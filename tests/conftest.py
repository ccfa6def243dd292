"""For all tests, and for the processes that they start."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

# The nets here are small: one thread is as fast on idle cores, and on busy ones torch's threads
# wait for each other, up to ten times as long. Set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

# nohup, and a shell that starts tests in the background, have them and their children ignore these.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )

PYTESTS_OWN = "PYTEST_CURRENT_TEST"

pytest.register_assert_rewrite("tests.support")


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """Undo what a command in this process does to its environment, which children would get."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys() - {PYTESTS_OWN}:
        del os.environ[name]
    for name, value in before.items():
        if name != PYTESTS_OWN and os.environ.get(name) != value:
            os.environ[name] = value
