"""The Operator service: what the command line calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog

from rootstock import __version__
from rootstock.common.errors import SchemaError
from rootstock.common.text import plain
from rootstock.common.times import instant
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.collector import Collector
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.identity.members import Members
from rootstock.coordinator.learning.operations import Operations
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.merges.forget import forget_samples
from rootstock.coordinator.merges.result import LearnedTask, OperatorJoin
from rootstock.coordinator.registry import OPEN_MERGES, Access, Merge, Submission, SubmissionState
from rootstock.coordinator.service.uploads.gate import blob_entries
from rootstock.coordinator.service.uploads.sessions import UploadSessions
from rootstock.coordinator.service.watch import Subscriptions
from rootstock.protos.rootstock.operator.v1 import operator_pb2 as pb
from rootstock.protos.rootstock.operator.v1.operator_pb2_grpc import OperatorServicer

MAX_DIGESTS = 10_000
"""Digests in an answer: 660 KB of a message's 4 MiB."""


class Operator(OperatorServicer):
    """Serves the operator's command line; `history` returns how the history does now."""

    def __init__(
        self,
        context: CoordinatorContext,
        committer: Committer,
        subscriptions: Subscriptions,
        uploads: UploadSessions,
        collector: Collector,
        members: Members,
        history: Callable[[], HistoryState],
    ) -> None:
        self._context = context
        self._registry = context.registry
        self._committer = committer
        self._subscriptions = subscriptions
        self._uploads = uploads
        self._collector = collector
        self._members = members
        self._history = history
        self._log = structlog.get_logger("operator")
        self._operations = Operations(context)

    async def GetStatus(self, _request: pb.GetStatusRequest, _context: Any) -> pb.GetStatusResponse:
        """Return sites, submissions and merges."""
        return await asyncio.to_thread(self._status, self._subscriptions.sites())

    async def DecideMerge(
        self, request: pb.DecideMergeRequest, _context: Any
    ) -> pb.DecideMergeResponse:
        """Record the operator's decision on a merge."""
        merge = await asyncio.to_thread(
            self._registry.merges.decide,
            request.merge_id,
            "approve" if request.approve else "reject",
            _reason(request.reason),
        )
        return pb.DecideMergeResponse(state=merge.state)

    async def Grow(self, _request: pb.GrowRequest, _context: Any) -> pb.GrowResponse:
        """Let every operation that is held go ahead."""
        merges = await asyncio.to_thread(self._registry.merges.release)
        return pb.GrowResponse(merge_ids=[merge.id for merge in merges])

    async def ForgetSamples(
        self, request: pb.ForgetSamplesRequest, _context: Any
    ) -> pb.ForgetSamplesResponse:
        """Delete the samples that came with a submission."""
        count = await asyncio.to_thread(forget_samples, self._context, request.submission_id)
        return pb.ForgetSamplesResponse(count=count)

    async def CollectGarbage(
        self, _request: pb.CollectGarbageRequest, _context: Any
    ) -> pb.CollectGarbageResponse:
        """Delete the blobs that nothing needs."""
        garbage = await self._collector.collect()
        kept = {kind: pb.BlobCount(**count.model_dump()) for kind, count in garbage.kept.items()}
        return pb.CollectGarbageResponse(
            kept=kept,
            deleted=pb.BlobCount(**garbage.deleted.model_dump()),
            digests=garbage.digests[:MAX_DIGESTS],
        )

    async def RollBack(self, request: pb.RollBackRequest, _context: Any) -> pb.RollBackResponse:
        """Take a net version back."""
        taken = await self._committer.roll_back(
            request.version, _reason(request.reason), and_later=request.and_later
        )
        return pb.RollBackResponse(
            versions=[version.number for version in taken], head=taken[-1].parent or 0
        )

    async def LearnTask(self, request: pb.LearnTaskRequest, _context: Any) -> pb.QueuedMerges:
        """Queue the joins of a task module that the operator learned."""
        learned = LearnedTask.parse(request.learned, what="learned task module")
        merges = await asyncio.to_thread(
            self._operations.learn_task, request.task, learned, request.source or None
        )
        return pb.QueuedMerges(merge_ids=merges)

    async def FoundNet(self, request: pb.FoundNetRequest, _context: Any) -> pb.QueuedMerges:
        """Found the net on a task module that the operator learned."""
        learned = LearnedTask.parse(request.learned, what="learned task module")
        await asyncio.to_thread(self._operations.found_net, request.merge_id, learned)
        return pb.QueuedMerges(merge_ids=[request.merge_id])

    async def Connect(self, request: pb.ConnectRequest, _context: Any) -> pb.QueuedMerges:
        """Queue a further join of what the net holds."""
        join = OperatorJoin.parse(request.join, what="learned join")
        merge = await asyncio.to_thread(
            self._operations.connect, request.category, request.task, join
        )
        return pb.QueuedMerges(merge_ids=[merge])

    async def PublishHeads(
        self, request: pb.PublishHeadsRequest, _context: Any
    ) -> pb.PublishedHeads:
        """Publish auxiliary heads, and tell every lab."""
        modules = {
            name: BlobEntry.parse(entry, what=f"head of task '{name}'")
            for name, entry in request.task_modules.items()
        }
        rotation = None
        if request.rotation:
            rotation = BlobEntry.parse(request.rotation, what="rotation head")
        published = await asyncio.to_thread(
            self._operations.publish_heads, request.origin, modules, rotation
        )
        return pb.PublishedHeads(heads=published.canonical())

    async def RetireHeads(self, request: pb.RetireHeadsRequest, _context: Any) -> pb.PublishedHeads:
        """Take the published heads back, and tell every lab."""
        retired = await asyncio.to_thread(self._operations.retire_heads, _reason(request.reason))
        return pb.PublishedHeads(heads=retired.canonical())

    async def Invite(self, request: pb.InviteRequest, _context: Any) -> pb.InviteResponse:
        """Invite someone to join under a name."""
        offer = await asyncio.to_thread(
            self._members.invite,
            request.name,
            _access(request.access),
            request.seconds,
            again=request.again,
        )
        self._log.info("member.invited", name=request.name, access=request.access)
        return pb.InviteResponse(
            token=offer.token, address=offer.address, authority=offer.authority
        )

    async def ListMembers(
        self, _request: pb.ListMembersRequest, _context: Any
    ) -> pb.ListMembersResponse:
        """Return sites, operators and invitations."""
        members = await asyncio.to_thread(self._members.list_members)
        return pb.ListMembersResponse(
            members=[
                pb.Member(
                    name=each.name,
                    access=each.access,
                    state=each.state,
                    reason=each.reason,
                    expires_at=each.expires_at or 0.0,
                )
                for each in members
            ]
        )

    async def SetSiteEnabled(
        self, request: pb.SetSiteEnabledRequest, _context: Any
    ) -> pb.SetSiteEnabledResponse:
        """Refuse a site's calls, or take them again."""
        if request.enabled:
            await asyncio.to_thread(self._members.enable, request.name)
        else:
            reason = _reason(request.reason)
            await asyncio.to_thread(self._members.disable, request.name, reason)
        state = "enabled" if request.enabled else "disabled"
        self._log.info(f"member.{state}", name=request.name, reason=plain(request.reason))
        return pb.SetSiteEnabledResponse()

    async def RevokeMember(
        self, request: pb.RevokeMemberRequest, _context: Any
    ) -> pb.RevokeMemberResponse:
        """Revoke every certificate of a member."""
        revoked = await asyncio.to_thread(
            self._members.revoke,
            request.name,
            _reason(request.reason),
            operator=request.operator,
        )
        self._log.info("member.revoked", name=request.name, reason=plain(request.reason))
        return pb.RevokeMemberResponse(revoked=revoked)

    def _status(self, watching: set[str]) -> pb.GetStatusResponse:
        registry = self._registry
        held_bytes = registry.uploads.held_bytes()
        head = registry.versions.head()
        history, merges = self._history(), registry.merges.all()
        ended = [merge for merge in merges if merge.state not in OPEN_MERGES]
        logged = sum(merge.logged for merge in ended)
        return pb.GetStatusResponse(
            net=self._context.config.net,
            net_version=0 if head is None else head.number,
            mlflow_uri=self._context.config.history.address,
            mlflow_experiment_id=history.experiment_id,
            sites=[
                pb.SiteStatus(name=site.name, watching=site.name in watching)
                for site in registry.sites.all()
            ],
            submissions=[self._submission(row, held_bytes) for row in registry.submissions.all()],
            merges=[self._merge(row) for row in merges],
            coordinator_version=__version__,
            history=pb.HistoryStatus(
                name=history.name,
                page=history.page,
                logged=logged,
                waiting=len(ended) - logged,
                error=history.error,
                failing_since=instant(history.since, "seconds") if history.since else "",
            ),
        )

    def _submission(self, row: Submission, held_bytes: dict[str, int]) -> pb.SubmissionStatus:
        if row.state is SubmissionState.RECEIVING:
            here, total = self._uploads.progress(row)
        else:
            here = total = sum(entry.size for entry in blob_entries(row.manifest).values())
        return pb.SubmissionStatus(
            submission_id=row.id,
            site=row.site,
            category=row.category,
            state=row.state,
            reason=row.reason,
            bytes_received=here,
            bytes_total=total,
            bytes_held=held_bytes.get(row.id, 0),
        )

    def _merge(self, row: Merge) -> pb.MergeStatus:
        seconds = 0.0
        if row.started_at is not None:
            end = time.time() if row.finished_at is None else row.finished_at
            seconds = max(0.0, end - row.started_at)
        return pb.MergeStatus(
            merge_id=row.id,
            submission_id=row.submission_id,
            category=row.category,
            task=row.task,
            operation=row.operation,
            state=row.state,
            reason=row.reason,
            step=row.step,
            steps=row.steps,
            seconds=seconds,
            numbers=row.numbers.flat(),
            net_version=row.net_version or 0,
            logged=row.logged,
            held=not row.released,
        )


def _access(text: str) -> Access:
    try:
        return Access(text)
    except ValueError as error:
        raise SchemaError(f"access {text[:40]!r} is none of {', '.join(Access)}") from error


def _reason(reason: str) -> str:
    """Return an operator's reason as it is recorded."""
    if not reason.strip():
        raise SchemaError("the reason is empty; say why, for those who read the history")
    return plain(reason.strip())
