"""Promises: what a release let others rely on, kept as JSON in `recorded/`.

A promise holds where the same values are still there, whatever was added since. What is added is
recorded by one command (`tests/contracts/record.py`), which takes nothing back: a promise that is
broken on purpose is taken out of its file by hand, where a reviewer sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
REMEDY = "python -m tests.contracts.record"


def broken(found: Any, promised: Any, where: str = "") -> Iterator[str]:
    """Yield what of a promise is not kept, one line each.

    Objects may have more keys than were promised, lists have as many entries.
    """
    if isinstance(promised, dict) and isinstance(found, dict):
        for key, value in promised.items():
            if key not in found:
                yield f"{where}/{key}: is missing, was {value!r}"
            else:
                yield from broken(found[key], value, f"{where}/{key}")
    elif isinstance(promised, list) and isinstance(found, list):
        if len(found) != len(promised):
            yield f"{where}: has {len(found)} entries, had {len(promised)}"
        for index, (each, value) in enumerate(zip(found, promised, strict=False)):
            yield from broken(each, value, f"{where}/{index}")
    elif found != promised:
        yield f"{where}: is {found!r}, was {promised!r}"


def require(found: Any, promised: Any) -> None:
    """Fail with everything that is not as promised."""
    problems = list(broken(found, promised))
    assert not problems, "\n".join(problems)


def both(promised: Any, found: Any) -> Any:
    """Return a promise with what was added to it."""
    if isinstance(promised, dict) and isinstance(found, dict):
        added = {key: value for key, value in found.items() if key not in promised}
        kept = {key: both(value, found.get(key, value)) for key, value in promised.items()}
        return dict(sorted({**kept, **added}.items()))
    return promised


def recorded(name: str) -> Any:
    """Return what was promised under a name; nothing before it was recorded first."""
    path = RECORDED / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def require_promise(name: str, found: dict[str, Any]) -> None:
    """Fail where a recorded promise is broken, or something that others see is not recorded."""
    promised = recorded(name)
    require(found, promised)
    assert both(promised, found) == promised, f"{name}.json lacks what was added: {REMEDY}"


def record(name: str, value: Any) -> None:
    """Write a file of `recorded/`."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    (RECORDED / f"{name}.json").write_text(text + "\n", "utf-8")
