"""The actors' part of ``bench solver``: a real Ray in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

_MEASURE = """
import json
from rootstock.common.nets.spec import ArchitectureSpec
from tests.benchmarks.system.solver_parallel import measure
spec = ArchitectureSpec(name="small-vgg", split="pool1", settings={"width": 4, "hidden": 8})
print(json.dumps(measure(spec, categories=2, draws=8, steps=2, cores=2)))
"""


def test_two_categories_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE], stdout=subprocess.PIPE, timeout=170, check=True
    )
    row = json.loads(done.stdout)
    assert row["net"] == "2 categories"
    assert row["cores"] == 2
    assert row["best_parallel_speedup"] == 2
    assert row["adjoint_speedup"] is None
    # Tiny jobs are little but their actors' starts, in turn and at once.
    assert row["in_turn_seconds"] > row["actor_start_seconds"] > 0
    assert row["parallel_speedup"] > 0
