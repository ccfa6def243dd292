"""Promises: what others rely on, kept in `recorded/`, a line each; and answers of old releases.

A recorded line has to be true of the present code. What is added is recorded by one command
(`tests/contracts/record.py`), which takes nothing back: a promise that is broken on purpose is
taken out of its file by hand, where a reviewer sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
REMEDY = "if it is meant, run `python -m tests.contracts.record`"


def recorded(name: str) -> set[str]:
    """Return the lines that were promised under a name."""
    path = RECORDED / f"{name}.txt"
    return set(path.read_text("utf-8").splitlines()) if path.exists() else set()


def record(name: str, lines: Iterable[str]) -> None:
    """Write what is promised under a name."""
    text = "\n".join(sorted(set(lines)))
    (RECORDED / f"{name}.txt").write_text(text + "\n", "utf-8")


def require_promise(name: str, present: Iterable[str]) -> None:
    """Fail where a promise is broken, or something that others see is not recorded."""
    found = set(present)
    lost = sorted(recorded(name) - found)
    assert not lost, f"{name}.txt promises what is no longer so:\n" + "\n".join(lost)
    new = sorted(found - recorded(name))
    assert not new, f"{name}.txt lacks what was added; {REMEDY}:\n" + "\n".join(new)


def broken(found: Any, promised: Any, where: str = "") -> Iterator[str]:
    """Yield where a JSON value is not as it was, one line each.

    Objects may have more keys than they had, lists have as many entries.
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
    """Fail with everything in a JSON value that is not as it was."""
    problems = list(broken(found, promised))
    assert not problems, "\n".join(problems)
