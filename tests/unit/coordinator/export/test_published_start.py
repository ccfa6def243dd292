"""A card says what published weights a category module began with, and how its images are read."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from rootstock import load_composed
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.nets.graph import Edge, ModuleRef, NetTree
from rootstock.common.nets.spec import Preprocessing
from rootstock.common.protocol import Plan, PublishedStart
from rootstock.common.weights.manifest import Recipe, TeacherManifest
from rootstock.coordinator.export.exporting import export_composed
from tests.support.exported_net import SPEC, TASK, Grown, put

PREPROCESSING = Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=0.875, interpolation="bicubic"
)
START = PublishedStart(
    source="package:some-weights",
    licence="Apache-2.0",
    digest="a" * 64,
    left_out=("fc.weight",),
    drawn=("classification/fc7.weight",),
)


def test_card_and_text_say_where_it_began_and_how_images_are_read(tmp_path: Path) -> None:
    store = Grown(tmp_path).store
    spec = SPEC.model_copy(update={"preprocessing": PREPROCESSING})
    f, heads = initial_modules(spec, [TASK], seed=1)
    g = heads[TASK.name]
    f_entry, g_entry = put(store, tmp_path, f), put(store, tmp_path, g)
    plan = Plan(
        net="animals",
        architecture=spec,
        tasks=(TASK,),
        initial_category_module=f_entry,
        initial_task_modules={TASK.name: g_entry},
        start=START,
    )
    manifest = TeacherManifest(
        site="cat-lab",
        category="cat",
        architecture=spec,
        category_module=f_entry,
        task_modules={TASK.name: g_entry},
        metrics={f"error/{TASK.name}": 2.5},
        recipe=Recipe(name="supervised"),
        plan=store.put_bytes(plan.canonical()),
    )
    submission = store.put_bytes(manifest.canonical())
    tree = NetTree(architecture=spec, tasks=(TASK,))
    ours, head = (
        ModuleRef(blob=blob, architecture=spec, submission=submission)
        for blob in (f_entry, g_entry)
    )
    tree = tree.with_category("cat", ours).with_task(TASK.name, head)
    tree = tree.with_edge(Edge(category="cat", task=TASK.name, error=2.5))
    out = tmp_path / "cat.safetensors"
    card = export_composed(tree, store, "cat", TASK.name, out)
    assert card.start == START
    assert card.preprocessing.resize == "bicubic"
    written = json.loads((tmp_path / "cat.safetensors.card.json").read_text())
    assert written["category_architecture"]["preprocessing"]["crop"] == 0.875
    text = (tmp_path / "cat.safetensors.card.md").read_text()
    assert "published weights, package:some-weights; licence: Apache-2.0" in text
    assert "the centre square, the middle 87.5 % of its side, in RGB" in text
    # The file takes images in the one unit; its own units are inside.
    x_NCHW = normalise(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    expected = ComposedNet(f, None, g).eval()(x_NCHW)
    assert torch.equal(load_composed(out)(x_NCHW), expected)
    program = export_composed(tree, store, "cat", TASK.name, tmp_path / "cat.pt2")
    assert program.parity is not None
    assert program.parity.random_difference < 1e-4
    # A tailored f is its lab's own, whatever the plan began with.
    tailored = manifest.model_copy(update={"recipe": Recipe(name="nettailor")})
    own = ours.model_copy(update={"submission": store.put_bytes(tailored.canonical())})
    tree = NetTree(architecture=spec, tasks=(TASK,)).with_category("cat", own)
    tree = tree.with_task(TASK.name, head).with_edge(Edge(category="cat", task=TASK.name))
    assert export_composed(tree, store, "cat", TASK.name, out).start is None
