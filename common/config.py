"""Configuration: TOML into frozen documents, checked whole before anything starts."""

from __future__ import annotations

import codecs
import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from rootstock.common.documents import Document
from rootstock.common.errors import ConfigurationError
from rootstock.common.urls import masked

D = TypeVar("D", bound=Document)

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_WORD_PROCESSOR = re.compile("[\u00a0\u2018-\u201f\u00ab\u00bb]")
"""Quotation marks and spaces that are none in TOML."""


def load(path: Path, kind: type[D]) -> D:
    """Read a TOML file into a document; errors name the file, every wrong key and the remedy."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"{path}: cannot be read ({reason}); give the path of a TOML file"
        ) from error
    text = _decoded(path, data)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{path}: is not TOML: {error}; mend that line{_hint(text)}"
        ) from error
    except RecursionError as error:
        raise ConfigurationError(
            f"{path}: is nested too deeply to be a configuration; give the file that is meant"
        ) from error
    return check(values, kind, source=str(path))


def expand(text: str) -> Path:
    """Return a path with its leading ``~`` or ``~user`` and its ``$VARIABLES`` replaced.

    Raises ConfigurationError for what nobody means as a path of this machine: no such user or
    variable (the folder would be called ``~`` or ``$HOME``), nothing at all, a URL, a Windows path.
    """
    given = os.path.expanduser(os.path.expandvars(text))  # noqa: PTH111  # Path's raises for ~user
    unknown = re.match(r"~[^/]*", given) or re.search(r"\$(\w+|\{[^}]*\})", given)
    if unknown is not None:
        problem = f"there is no {unknown[0]} here; write the path out, from / on"
    elif not given.strip() or "\0" in given:
        problem = "it names nothing; give a path"
    elif "://" in given or re.match(r"[A-Za-z]:[\\/]", given):
        problem = "it is a URL or a Windows path; give a path of this machine, such as /srv/images"
    else:
        return Path(given)
    raise ConfigurationError(f"path {text!r}: {problem}")


def _expanded(value: object) -> object:
    return expand(value) if isinstance(value, str) else value


ConfiguredPath = Annotated[Path, BeforeValidator(_expanded)]
"""A path of a configuration file; see `expand`."""


def _decoded(path: Path, data: bytes) -> str:
    """Return a file's text: UTF-8, with or without a byte order mark."""
    remedy = "save it as UTF-8, which TOML is written in"
    if data.startswith(_UTF16) or b"\0" in data[:2]:
        raise ConfigurationError(f"{path}: is UTF-16 text; {remedy}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path}: byte 0x{data[error.start]:02x} in line {line} is not UTF-8; {remedy}"
        ) from error


def _hint(text: str) -> str:
    strange = _WORD_PROCESSOR.search(text)
    if strange is None:
        return ""
    line = text.count("\n", 0, strange.start()) + 1
    return (
        f" (line {line} has {strange[0]!r} of a word processor: write plain quotation marks "
        "and spaces)"
    )


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
    rule = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    value = (
        "" if isinstance(given, dict) else f" = {masked(repr(given))}"
    )  # of a whole table, the rule tells
    return f"key '{key}'{value}: {rule}; change the value" if key else f"{rule}; change the value"


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
