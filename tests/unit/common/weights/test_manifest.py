"""What claims to be a manifest costs little before it is refused."""

import json

import pytest

from rootstock.common.errors import SchemaError
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.weights.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_MANIFEST_VALUES,
    BlobEntry,
    Recipe,
    TeacherManifest,
    TensorEntry,
    parse_manifest,
)

DIGEST = "0" * 64


def manifest(tensors: int) -> TeacherManifest:
    entry = TensorEntry(dtype="F32", shape=(512, 512, 3, 3), sha256=DIGEST)
    blob = BlobEntry(
        digest=DIGEST,
        size=8,
        tensors={f"blocks.{index}.conv.weight": entry for index in range(tensors)},
    )
    return TeacherManifest(
        site="cat-lab",
        category="cat",
        architecture=ArchitectureSpec(name="vgg16", split="pool5"),
        category_module=blob,
        task_modules={"classification": blob.model_copy(update={"tensors": {}})},
        recipe=Recipe(name="supervised"),
        plan=DIGEST,
    )


def test_a_thousand_tensors_are_a_manifest() -> None:
    large = manifest(1500)
    assert parse_manifest(large.canonical()) == large


def test_more_bytes_than_a_manifest_has_are_refused() -> None:
    with pytest.raises(SchemaError, match=rf"bytes, the limit is {MAX_MANIFEST_BYTES}"):
        parse_manifest(manifest(2500).canonical())


@pytest.mark.parametrize(
    "bomb",
    [
        json.dumps({"kind": "teacher", "task_modules": {f"t{i}": {} for i in range(25_000)}}),
        json.dumps({"kind": "teacher", "category_module": [0] * 60_000}),
        '{"kind":"teacher","category_module":' + "[" + "[]," * 60_000 + "[]]}",
        '{"kind":"teacher","category_module":' + "{}".join('{"":' for _ in range(40_000)),
        "[" * 100_000,
    ],
)
def test_values_are_counted_before_any_is_looked_at(bomb: str) -> None:
    with pytest.raises(SchemaError, match=rf"values, the limit is {MAX_MANIFEST_VALUES}"):
        parse_manifest(bomb.encode()[:MAX_MANIFEST_BYTES])
