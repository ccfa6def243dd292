"""Configuration: TOML into frozen documents, checked whole before anything starts."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rootstock.common.documents import Document
from rootstock.common.errors import ConfigurationError
from rootstock.common.urls import masked

D = TypeVar("D", bound=Document)


def load(path: Path, kind: type[D]) -> D:
    """Read a TOML file into a document; errors name the file, every wrong key and the remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({error.strerror}); give the path of a TOML file"
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}; mend that line") from error
    return check(values, kind, source=str(path))


def check(values: dict[str, Any], kind: type[D], *, source: str) -> D:
    """Turn plain values into a document; errors begin with their source."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem, kind) for problem in error.errors(include_url=False)]
        raise ConfigurationError("\n".join(f"{source}: {line}" for line in lines)) from error


def _explain(problem: Any, kind: type[Document]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(kind, problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        remedy = f"did you mean '{close[0]}'?" if close else "known keys: " + ", ".join(known)
        return f"unknown key '{key}'; {remedy}"
    if problem["type"] == "missing":
        return f"key '{key}' is missing; add it"
    return f"key '{key}' = {masked(repr(problem['input']))}: {problem['msg']}; change the value"


def _known_keys(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        field = kind.model_fields.get(str(part))
        if field is None:
            continue
        annotation = field.annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if nested:
            kind = nested[0]
    return sorted(kind.model_fields)
