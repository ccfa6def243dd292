"""What is stored, signed, configured or printed as JSON: its keys, and what each may be."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from rootstock.common.documents import Document
from rootstock.common.nets.graph import VersionCommit
from rootstock.common.nets.tree_documents import TreeRoot, TreeShard
from rootstock.common.protocol import Heads, Plan
from rootstock.common.provenance.envelope import Envelope
from rootstock.common.provenance.log import LogEntry, LogHead
from rootstock.common.weights.card import NetCard
from rootstock.common.weights.manifest import RefinementManifest, TeacherManifest
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.net.verify import Problem
from rootstock.deploy.federation.run import Outcome
from rootstock.deploy.federation.tables import category_rows
from rootstock.protos.rootstock.operator.v1 import operator_pb2
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.state import Status
from rootstock.site_agent.teacher.data_report import DataReport
from rootstock.site_agent.transfer.adapt_card import AdaptedCard
from rootstock.site_agent.transfer.rank_sources import Ranking

NAME = "documents"
STORED: tuple[type[Document], ...] = (
    TeacherManifest, RefinementManifest, Plan, Heads, TreeRoot, TreeShard, VersionCommit,
)  # fmt: skip
"""Documents with a digest that others name: their bytes stay."""
LOGGED: tuple[type[Document], ...] = (LogEntry, LogHead, Envelope)
"""What others keep and verify: labs, and whoever has a bundle."""
PRINTED: dict[str, type[Document]] = {
    "net verify: problems": Problem,
    "net export": NetCard,
    "site status": Status,
    "site adapt": AdaptedCard,
    "site check": DataReport,
    "site sources": Ranking,
}
CONFIGURED: dict[str, type[Document]] = {
    "coordinator.toml": CoordinatorConfig,
    "site.toml": SiteConfig,
}


def present() -> Iterator[str]:
    """Yield what each key of each document may be: `.` a key, `.*` any key, `[]` an entry."""
    kinds = {kind.__name__: kind for kind in STORED + LOGGED} | PRINTED | CONFIGURED
    for name, kind in kinds.items():
        for path, told in _walk(kind, "", ()):
            yield f"{name} {path}: {told}"
    for path, told in _shape(_demo(), ""):
        yield f"demo, up {path}: {told}"


def _walk(
    annotation: Any, path: str, within: tuple[type[BaseModel], ...]
) -> Iterator[tuple[str, str]]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _walk(arguments[0], path, within)
    elif origin in (Union, types.UnionType):
        for each in arguments:
            yield from _walk(each, path, within)
    elif origin is Literal:
        yield from ((path, json.dumps(each)) for each in arguments)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from ((path, json.dumps(each.value)) for each in annotation)
    elif origin in (tuple, list):
        for each in arguments:
            if each is not Ellipsis:
                yield from _walk(each, f"{path}[]", within)
    elif origin in (dict, Mapping):
        yield from _walk(arguments[1], f"{path}.*", within)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield path or ".", "object"
        if annotation not in within:  # an architecture may hold one
            for name, field in annotation.model_fields.items():
                key = f"{path}.{name}"
                yield from _walk(field.annotation, key, (*within, annotation))
                default = field.get_default(call_default_factory=True)
                if not field.is_required() and not isinstance(default, BaseModel):
                    yield key, f"default {json.dumps(to_jsonable_python(default))}"
    else:
        yield path, getattr(annotation, "__name__", str(annotation))


def _shape(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the types in a JSON value, as `_walk` does."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _shape(each, f"{path}.{key}")
    elif isinstance(value, list):
        for each in value:
            yield from _shape(each, f"{path}[]")
    else:
        yield path, type(value).__name__


def _demo() -> dict[str, Any]:
    merge = operator_pb2.MergeStatus(category="cat", task="classification", state="merged")
    for key in category_rows(operator_pb2.GetStatusResponse(merges=[merge]))[0]:
        if key.endswith(("_error", "_iou")):
            merge.numbers[key] = 1.0
    merge.net_version = 1
    rows = category_rows(operator_pb2.GetStatusResponse(merges=[merge]))
    outcome = Outcome(net_version=1, seconds=1.0, mlflow_uri="http://127.0.0.1:1", categories=rows)
    return outcome.as_json(Path("state"))
