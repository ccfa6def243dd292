"""What is deleted is exactly what nothing needs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rootstock.common.artifacts.gc import Collection
from rootstock.common.errors import ConflictError, NotFoundError, StorageError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights.manifest import AdapterEntry, RefinementManifest
from rootstock.coordinator.config import GarbageConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.collector import Collector, collect_garbage
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.model import JobResult
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.net.verify import verify_version
from rootstock.coordinator.paths import StatePaths, samples_area, signature_ref
from rootstock.coordinator.plan.heads import HeadsFile, publish, retire
from rootstock.coordinator.registry import Merge, MergeState, Receipt, SubmissionState
from rootstock.coordinator.registry.quotas import LEASE_SECONDS
from tests.support.coordinator_context import receive, teacher
from tests.support.merges import SITE_KEY, evaluating, merge_runner, report, with_policy


def heads_of(context: CoordinatorContext) -> HeadsFile:
    return HeadsFile(StatePaths(context.config).heads)


def collected(
    context: CoordinatorContext, *, grace_seconds: float = -5.0, dry_run: bool = False
) -> Collection:
    """Collect with no grace at all."""
    return collect_garbage(
        context.registry,
        context.store,
        context.plan,
        heads_of(context).current(),
        grace_seconds=grace_seconds,
        dry_run=dry_run,
    )


def weights(context: CoordinatorContext, seed: int) -> str:
    """Put a blob that nothing else has; return its digest."""
    tensors = {"w": torch.rand(8, generator=torch.Generator().manual_seed(seed))}
    return put_tensors(context.store, tensors).digest


def candidate(context: CoordinatorContext, merge: Merge) -> str:
    result = JobResult.model_validate(context.registry.merges.get(merge.id).job_result)
    assert result.zero_sample is not None
    return result.zero_sample.blob.digest


def refined(context: CoordinatorContext, merge: Merge) -> tuple[str, str]:
    """Receive a refined adapter for a merge; return the digests of adapter and manifest."""
    spec = AdapterSpec(in_channels=4, out_channels=4)
    adapter = Adapter(spec).random_start(torch.Generator().manual_seed(1))
    blob = put_tensors(context.store, adapter.state_dict())
    manifest = RefinementManifest(
        site="dog-lab",
        evaluation=merge.id.replace("mrg", "evl"),
        adapter=AdapterEntry(spec=spec, blob=blob),
    )
    document = manifest.canonical()
    digest = context.store.put_bytes(document)
    upload = context.registry.uploads.begin(manifest, document, b"signature", open_limit=4)
    receipt = Receipt(digest, upload.id, "2026-01-01T00:00:00+00:00", b"signed")
    context.registry.uploads.receive(upload.id, receipt)
    return blob.digest, digest


def test_a_net_and_what_is_open_need_every_blob_and_the_rest_goes(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    needed = {blob.digest for blob in context.store.blobs()}
    adapter, manifest = refined(context, merge)
    orphan = weights(context, 1)
    assert collected(context, grace_seconds=3600).digests == ()
    assert collected(context, dry_run=True).digests == (orphan,)
    done = collected(context)
    assert done.digests == (orphan,)
    assert {blob.digest for blob in context.store.blobs()} == needed | {adapter, manifest}
    # Commit, root, shard and manifest; f and g are the plan's initial ones here.
    assert (done.kept["plan"].blobs, done.kept["net"].blobs) == (3, 4)
    assert done.kept["merges"].blobs == 2
    assert done.kept["young"].blobs == 0
    # The merge goes on to its end with what was left, and the net is whole.
    report(context, merge)
    generous = with_policy(context, max_error=100.0, max_above_teacher=100.0)
    asyncio.run(merge_runner(generous).carry(merge.id))
    assert context.registry.merges.get(merge.id).state is MergeState.MERGED
    # The other candidate was not taken: it goes with what came with it.
    assert set(collected(context).digests) == {adapter, manifest}
    view = context.net
    assert verify_version(view, 2, context.key.public_key) == []


def test_what_was_rolled_back_stays_whole(context: CoordinatorContext, tmp_path: Path) -> None:
    merge = evaluating(context, tmp_path)
    report(context, merge)
    generous = with_policy(context, max_error=100.0, max_above_teacher=100.0)
    asyncio.run(merge_runner(generous).carry(merge.id))
    before = list(context.store.blobs())
    asyncio.run(Committer(generous).roll_back(1, "wrong labels", and_later=True))
    assert collected(context).digests == ()
    assert list(context.store.blobs()) == before
    view = context.net
    assert verify_version(view, 2, context.key.public_key) == []


def test_what_a_rejected_merge_learned_goes_and_what_its_lab_sent_stays(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    learned = candidate(context, merge)
    adapter, manifest = refined(context, merge)
    sent = context.registry.submissions.get(merge.submission_id).manifest_digest
    context.end(merge, "dog-lab", MergeState.REJECTED, "38% off")
    assert set(collected(context).digests) == {learned, adapter, manifest}
    assert context.store.has(sent)


def test_of_a_refused_teacher_the_manifest_stays(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    evaluating(context, tmp_path)
    f, other = weights(context, 1), weights(context, 2)
    honest = teacher(context, "cow-lab", "cow")
    module = honest.category_module
    for digest, state in ((f, SubmissionState.REFUSED), (other, SubmissionState.ADMITTED)):
        shipped = honest.model_copy(
            update={"category_module": module.model_copy(update={"digest": digest})}
        )
        submission = receive(context, shipped, SITE_KEY)
        context.registry.submissions.set_state(submission, state)
    assert collected(context).digests == (f,)
    for each in context.registry.submissions.all():
        assert context.store.has(each.manifest_digest)


def test_blobs_of_an_upload_stay_for_as_long_as_it_may_go_on(
    context: CoordinatorContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluating(context, tmp_path)
    f = weights(context, 1)
    honest = teacher(context, "cow-lab", "cow")
    shipped = honest.model_copy(
        update={"category_module": honest.category_module.model_copy(update={"digest": f})}
    )
    context.registry.sites.join("cow-lab", b"c" * 32)
    document = shipped.canonical()
    context.registry.uploads.begin(shipped, document, b"signature", open_limit=4)
    assert collected(context).digests == ()
    now = time.time()
    monkeypatch.setattr(context.registry.uploads, "_clock", lambda: now + LEASE_SECONDS + 1)
    assert collected(context).digests == (f,)


def test_heads_stay_until_they_are_retired(context: CoordinatorContext) -> None:
    file = heads_of(context)
    rotation = put_tensors(context.store, {"w": torch.rand(8)})
    publish(file, context.registry, "test", {}, rotation)
    assert collected(context).digests == ()
    retire(file, context.registry, "test")
    assert collected(context).digests == (rotation.digest,)


def test_samples_are_no_garbage_and_counted(context: CoordinatorContext) -> None:
    area = context.store.area(samples_area("sub-0001"))
    blob = put_tensors(area, {"images": torch.rand(4)})
    found = collected(context)
    assert (found.kept["samples"].blobs, found.kept["samples"].bytes) == (1, blob.size)
    assert found.kept["jobs"].blobs == 0
    assert area.has(blob.digest)


def test_a_store_that_two_nets_share_is_left_alone(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    evaluating(context, tmp_path)
    orphan = weights(context, 1)
    known = context.registry.submissions.all()[0].manifest_digest
    context.store.put_ref(signature_ref(known), orphan)
    context.store.put_ref(signature_ref("ab" * 32), orphan)
    with pytest.raises(ConflictError, match=f"manifest {'ab' * 32}, which the database does not"):
        collected(context)
    assert context.store.has(orphan)


def test_where_a_version_cannot_be_read_nothing_is_deleted(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    evaluating(context, tmp_path)
    orphan = weights(context, 1)
    head = context.head()
    assert head is not None
    path = context.store.local_path(head.tree)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b" ")
    with pytest.raises(StorageError, match="do not match the name"):
        collected(context)
    context.store.delete(head.tree)
    with pytest.raises(NotFoundError, match=head.tree):
        collected(context)
    assert context.store.has(orphan)


def test_a_coordinator_collects_at_start_and_goes_on_after_a_fault(
    context: CoordinatorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = weights(context, 1)
    settings = GarbageConfig.model_construct(
        automatic=True, interval_seconds=0.05, grace_seconds=-5.0
    )
    config = context.config.model_copy(update={"garbage": settings})
    context.store.put_ref(signature_ref("ab" * 32), orphan)  # a fault, to begin with
    collector = Collector(replace(context, config=config), heads_of(context).current)

    async def run() -> None:
        running = asyncio.create_task(collector.run())
        await asyncio.sleep(0.3)
        assert context.store.has(orphan)
        (tmp,) = StatePaths(config).state.glob("artifacts/refs/signatures/ab/*")
        tmp.unlink()
        async with asyncio.timeout(20):
            while context.store.has(orphan):
                assert not running.done()
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(run())
