"""Commands as people type them, in a folder of theirs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.checkout import CHECKOUT
from tests.support.federation_processes import ROOTSTOCK


def rootstock(folder: Path, *words: str, code: int = 0, **environment: str) -> str:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [*ROOTSTOCK, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr


def invite(config: Path, *words: str) -> dict[str, Any]:
    answer = rootstock(
        config.parent, "coordinator", "invite", *words, "--config", str(config), "--json"
    )
    made: dict[str, Any] = json.loads(answer)
    return made
