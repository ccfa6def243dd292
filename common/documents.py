"""The base of every document that is configured, signed or stored: frozen, strict, canonical."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from rootstock.common.errors import SchemaError
from rootstock.common.urls import masked


class Document(BaseModel):
    """A frozen pydantic model that refuses unknown keys and has one byte form."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, frozen=True, extra="forbid", allow_inf_nan=False
    )

    def canonical(self) -> bytes:
        """Return the one JSON form that is signed and hashed: sorted keys, no white space."""
        return canonical_json(self.model_dump(mode="json"))

    def content_digest(self) -> str:
        """Return the SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def parse(cls, data: bytes, *, what: str) -> Self:
        """Read a document that a peer or a disk supplied, already capped in size by the caller.

        `what` is how errors name it ("manifest", "plan").
        """
        with schema_errors(what):
            return cls.model_validate_json(data)


@contextmanager
def schema_errors(what: str) -> Iterator[None]:
    """Turn a failed validation into a SchemaError, which names the first offending key."""
    try:
        yield
    except ValidationError as error:
        raise SchemaError(f"the {what} does not fit its schema: {first_problem(error)}") from error


def canonical_json(value: Any) -> bytes:
    """Serialise a JSON value with sorted keys and no white space; NaN and Inf are errors."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def first_problem(error: ValidationError) -> str:
    """Say the first problem of a failed validation as "key: rule (value)"."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"]) or "(top)"
    # A peer chose the names in a key, too.
    key = _short(key if key.isprintable() else ascii(key))
    return f"{key}: {problem['msg']} (got {_short(masked(repr(problem['input'])))})"


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
