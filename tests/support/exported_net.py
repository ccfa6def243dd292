"""A small net whose joins are exported."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.nets.graph import Edge, ModuleRef, NetTree
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry
from rootstock.coordinator.export.exporting import export_composed

SPEC = ArchitectureSpec(name="small-vgg", settings={"width": 4}, split="pool1")
TASK = TaskSpec(name="classification")


def put(store: LocalStore, folder: Path, module: nn.Module) -> BlobEntry:
    entry = safetensors_io.write(folder / "blob", module.state_dict())
    store.put_file(folder / "blob", entry.digest)
    return entry


class Grown:
    """A net of three categories: cat founded it, cow and sow are joined by an adapter."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder / "store")
        cat, heads = initial_modules(SPEC, [TASK], seed=1)
        cow, _ = initial_modules(SPEC, [TASK], seed=2)
        adapter = Adapter(AdapterSpec(in_channels=4, out_channels=4, convs=2, kernel=3))
        adapter.set_permutation(torch.tensor([2, 0, 3, 1]))
        adapter.beta.fill_(1.5)
        head = heads[TASK.name]
        self.direct = ComposedNet(cat, None, head).eval()
        self.adapted = ComposedNet(cow, adapter, head).eval()
        calibration = Calibration(scale=0.1, bias=-1.25)
        self.calibrated = ComposedNet(cow, adapter, head, calibration).eval()
        entry = AdapterEntry(spec=adapter.spec, blob=put(self.store, folder, adapter))
        tree = NetTree(architecture=SPEC, tasks=(TASK, TaskSpec(name="viewpoint")))
        for name, module in {"cat": cat, "cow": cow, "sow": cow}.items():
            tree = tree.with_category(name, self._ref(folder, module))
        tree = tree.with_task(TASK.name, self._ref(folder, head))
        tree = tree.with_edge(Edge(category="cat", task=TASK.name, error=2.5))
        edge = Edge(category="cow", task=TASK.name, adapter=entry, error=4.0)
        calibrated = edge.model_copy(update={"category": "sow", "calibration": calibration})
        self.tree = tree.with_edge(edge).with_edge(calibrated)

    def _ref(self, folder: Path, module: nn.Module) -> ModuleRef:
        blob = put(self.store, folder, module)
        return ModuleRef(blob=blob, architecture=SPEC, submission="0" * 64)

    def export(self, category: str, out: Path) -> dict[str, object]:
        card = export_composed(self.tree, self.store, category, TASK.name, out)
        return card.model_dump(mode="json")
