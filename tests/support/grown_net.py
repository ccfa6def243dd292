"""A net in a coordinator's state folder, with real modules, as merges leave it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.graph import Edge, ModuleRef, NetTree, VersionCommit
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.net.objects import write_tree
from rootstock.coordinator.registry import MergeState, Receipt, Registry, SubmissionState
from rootstock.deploy.cli.commands import app
from tests.support.named_blobs import teacher

SPEC = ArchitectureSpec(name="small-vgg", settings={"width": 4, "input_size": 32}, split="pool1")
CLASSIFICATION = TaskSpec(name="classification")
SEGMENTATION = TaskSpec(name="segmentation", kind="binary-segmentation")
NUMBERS: dict[str, Any] = {
    "teacher_error": 0.5,
    "no_adapter_error": 52.0,
    "zero_sample_error": 1.9,
    "few_sample_error": 1.0,
    "refined_error": 1.25,
    "seconds/zero-sample": 80.0,
    "seconds/few-sample": 24.4,
}


class GrownNet:
    """Commits trees as net versions, one after the other."""

    def __init__(
        self,
        folder: Path,
        tasks: tuple[TaskSpec, ...] = (CLASSIFICATION,),
        spec: ArchitectureSpec = SPEC,
    ) -> None:
        self.config = folder / "coordinator.toml"
        state = folder / "state"
        self.config.write_text(
            f'net = "animals"\nstate = "{state}"\n[plan.architecture]\n'
            f'name = "{spec.name}"\nsplit = "{spec.split}"\n'
        )
        state.mkdir()
        self.spec = spec
        self.store = LocalStore(state / "artifacts")
        self.registry = Registry(f"sqlite:///{state / 'registry.sqlite'}")
        self.tree = NetTree(architecture=spec, tasks=tasks)
        self._blob = folder / "blob"
        self._parent: VersionCommit | None = None

    def put(self, module: nn.Module) -> BlobEntry:
        entry = safetensors_io.write(self._blob, module.state_dict())
        self.store.put_file(self._blob, entry.digest)
        return entry

    def ref(self, module: nn.Module) -> ModuleRef:
        return ModuleRef(blob=self.put(module), architecture=self.spec, submission="0" * 64)

    def found(self, category: str, seed: int = 1, error: float | None = 2.5) -> None:
        """Add a category, the net's task modules and their direct joins."""
        module, heads = initial_modules(self.spec, self.tree.tasks, seed)
        tree = self.tree.with_category(category, self.ref(module))
        for name, head in heads.items():
            tree = tree.with_task(name, self.ref(head))
            tree = tree.with_edge(Edge(category=category, task=name, error=error))
        self.tree = tree

    def add(
        self,
        category: str,
        *tasks: str,
        seed: int = 2,
        error: float | None = 4.0,
        calibration: Calibration | None = None,
    ) -> None:
        """Add a category and join it to tasks by adapters."""
        module, _ = initial_modules(self.spec, self.tree.tasks, seed)
        self.tree = self.tree.with_category(category, self.ref(module))
        for task in tasks:
            adapter = Adapter(AdapterSpec(in_channels=4, out_channels=4, kernel=3))
            adapter.random_start(torch.Generator().manual_seed(seed))
            entry = AdapterEntry(spec=adapter.spec, blob=self.put(adapter))
            edge = Edge(
                category=category,
                task=task,
                adapter=entry,
                calibration=calibration or Calibration(),
                error=error,
            )
            self.tree = self.tree.with_edge(edge)

    def commit(self, category: str, task: str = CLASSIFICATION.name, **numbers: float) -> int:
        """Commit the tree as the next version, made by a merge of that category and task."""
        founding = self._parent is None
        manifest = teacher(category, task)
        site = manifest.site
        self.registry.sites.join(site, category.encode().ljust(32))
        document = manifest.canonical()
        upload = self.registry.uploads.begin(manifest, document, b"signature", open_limit=4)
        receipt = Receipt(upload.manifest_digest, upload.id, "2026-01-01T00:00:00+00:00", b"signed")
        self.registry.uploads.receive(upload.id, receipt)
        self.registry.submissions.set_state(upload.id, SubmissionState.ADMITTED)
        operation = OperationKind.FOUND if founding else OperationKind.NEW_CATEGORY
        merge = self.registry.merges.create(upload.id, category, task, operation)
        if not founding:
            for state in (MergeState.DISTILLING, MergeState.EVALUATING):
                self.registry.merges.advance(merge.id, state)
        parent = self._parent
        number = 1 if parent is None else parent.number + 1
        commit = VersionCommit(
            tree=write_tree(self.store, self.tree),
            parent=None if parent is None else parent.content_digest(),
            number=number,
            merge={
                "operation": operation,
                "category": category,
                "task": task,
                "site": site,
                "candidate": None if founding else "refined",
                **numbers,
            },
            created_at=f"2026-01-02T03:04:{number:02d}.000+00:00",
        )
        digest = self.store.put_bytes(commit.canonical())
        parent_number = None if parent is None else parent.number
        self.registry.versions.commit(number, digest, commit.tree, parent_number, merge.id)
        self._parent = commit
        return number


def animals(folder: Path) -> GrownNet:
    """Three versions: cat founds, cow is joined to both tasks, dog to the classification alone."""
    net = GrownNet(folder, (CLASSIFICATION, SEGMENTATION))
    net.found("cat")
    net.commit("cat", teacher_error=2.5)
    net.add("cow", "classification", "segmentation", seed=2)
    net.commit("cow", **NUMBERS)
    net.add(
        "dog", "classification", seed=3, error=1.25, calibration=Calibration(scale=0.5, bias=1.0)
    )
    net.commit("dog", **NUMBERS)
    return net


class Command:
    """Runs the command line in this process and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.exit_code = 0

    def text(self, *argv: object) -> str:
        """Return what was printed on standard output."""
        self._capsys.readouterr()
        code = app([str(word) for word in argv], standalone_mode=False)
        self.exit_code = code if isinstance(code, int) else 0
        return self._capsys.readouterr().out

    def json(self, *argv: object) -> Any:
        return json.loads(self.text(*argv, "--json"))
