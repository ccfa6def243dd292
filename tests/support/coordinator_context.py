"""A coordinator's context without a server: SQLite, a local store and the plan of a small net."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.identity.keys import SigningKey, key_id, load_or_create
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.provenance.statements import sign_manifest
from rootstock.common.weights.manifest import Recipe, TeacherManifest
from rootstock.coordinator.config import (
    AcceptanceConfig,
    CoordinatorConfig,
    PlanConfig,
    WitnessesConfig,
)
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.publish import publish_plan
from rootstock.coordinator.registry import Receipt, Registry

ARCHITECTURE = ArchitectureSpec(name="small-vgg", settings={"width": 4}, split="pool1")


SEGMENTATION = TaskSpec(name="segmentation", kind="binary-segmentation")


BY_RULE: dict[str, object] = {"first": "rule", "min_samples": 0}
"""No merge waits for an operator; tests that are about it have other policies."""


@contextmanager
def open_context(
    state: Path, tasks: tuple[TaskSpec, ...] = (TaskSpec(name="classification"),)
) -> Iterator[CoordinatorContext]:
    """Publish a plan of these tasks in a state folder and open its registry."""
    config = CoordinatorConfig(
        net="digits",
        state=state,
        plan=PlanConfig(architecture=ARCHITECTURE, tasks=tasks),
        acceptance=AcceptanceConfig.model_validate(BY_RULE),
        witnesses=WitnessesConfig(number=0),
    )
    store = LocalStore(state / "artifacts")
    registry = Registry(f"sqlite:///{state / 'registry.sqlite'}")
    yield CoordinatorContext(
        registry=registry,
        store=store,
        plan=publish_plan(config, store, state / "plan.json"),
        key=load_or_create(StatePaths(config).key),
        config=config,
    )
    registry.close()


def teacher(context: CoordinatorContext, site: str, category: str) -> TeacherManifest:
    """Return an honest manifest: the plan's own weights, shipped by a lab."""
    plan = context.plan
    return TeacherManifest(
        site=site,
        category=category,
        architecture=plan.architecture,
        category_module=plan.initial_category_module,
        task_modules=plan.initial_task_modules,
        metrics={f"error/{task}": 5.0 for task in plan.initial_task_modules},
        recipe=Recipe(name="supervised"),
        plan=plan.content_digest(),
    )


def receive(
    context: CoordinatorContext, manifest: TeacherManifest, key: SigningKey | None = None
) -> str:
    """Bring a manifest to `received`; return the submission's id."""
    registry = context.registry
    public_key = manifest.site.encode().ljust(32) if key is None else key.public_key
    registry.sites.join(manifest.site, public_key)
    document = manifest.canonical()
    net = key_id(context.key.public_key)
    signature = b"signature" if key is None else sign_manifest(key, document, net)
    context.store.put_bytes(document)
    upload = registry.uploads.begin(manifest, document, signature, open_limit=4)
    receipt = Receipt(upload.manifest_digest, upload.id, "2026-01-01T00:00:00+00:00", b"signed")
    registry.uploads.receive(upload.id, receipt)
    return upload.id
