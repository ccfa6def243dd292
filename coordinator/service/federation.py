"""The Federation service: turns messages into calls on what does the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import structlog

from rootstock import __version__
from rootstock.common.errors import BusyError, ProtocolVersionError
from rootstock.common.identity.certificates import requested_key, to_pem
from rootstock.common.protocol import PROTOCOL_MAXIMUM, PROTOCOL_MINIMUM
from rootstock.common.text import plain
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import Intent, Refusal
from rootstock.coordinator.identity.members import Members
from rootstock.coordinator.identity.rate import RateLimit
from rootstock.coordinator.plan.heads import CurrentHeads
from rootstock.coordinator.registry import Access
from rootstock.coordinator.service.downloads import Downloads
from rootstock.coordinator.service.interceptors import caller
from rootstock.coordinator.service.messages import evaluation_report, receipt_message
from rootstock.coordinator.service.reports import take_report
from rootstock.coordinator.service.uploads.sessions import UploadSessions
from rootstock.coordinator.service.watch import Subscriptions, watch
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationServicer


class Federation(FederationServicer):
    """What labs call. The interceptor knows who calls, and turns errors into statuses."""

    def __init__(
        self,
        context: CoordinatorContext,
        heads: CurrentHeads,
        subscriptions: Subscriptions,
        uploads: UploadSessions,
        downloads: Downloads,
        members: Members,
    ) -> None:
        self._context = context
        self._heads = heads
        self._subscriptions = subscriptions
        self._uploads = uploads
        self._downloads = downloads
        self._members = members
        self._renewals = RateLimit(1 / 60, 10)
        self._plan = context.plan.canonical(), context.plan.content_digest()
        self._log = structlog.get_logger("federation")

    async def GetPlan(self, request: pb.GetPlanRequest, _context: Any) -> pb.GetPlanResponse:
        """Agree on a protocol version and hand out the plan and the published heads.

        A lab that says what it means to train hears before it does so if there is no room for it.
        """
        heads = await asyncio.to_thread(self._heads)
        refusal = await asyncio.to_thread(self._refusal, caller(), request)
        plan, plan_digest = self._plan
        return pb.GetPlanResponse(
            protocol=negotiate(request),
            plan=plan,
            plan_digest=plan_digest,
            coordinator_version=__version__,
            heads=b"" if heads is None else heads.canonical(),
            refusal=refusal,
        )

    def _refusal(self, site: str, request: pb.GetPlanRequest) -> str:
        if not request.category:
            return ""
        tasks = tuple(request.tasks) or tuple(task.name for task in self._context.plan.tasks)
        intent = Intent(site, request.category, tasks, request.new_version)
        operations = self._context.operations(intent)
        return plain(operations.reason) if isinstance(operations, Refusal) else ""

    async def BeginUpload(
        self, request: pb.BeginUploadRequest, _context: Any
    ) -> pb.BeginUploadResponse:
        """Open or resume an upload."""
        return await self._uploads.begin(caller(), request)

    async def Upload(
        self, _requests: AsyncIterator[pb.UploadRequest], context: Any
    ) -> pb.UploadResponse:
        """Take the chunks of one blob."""
        return await self._uploads.receive(caller(), _Requests(context))

    async def CommitUpload(
        self, request: pb.CommitUploadRequest, _context: Any
    ) -> pb.CommitUploadResponse:
        """End an upload with a receipt."""
        receipt = await self._uploads.commit(caller(), request.upload_id)
        logged = await asyncio.to_thread(self._context.log.receipt, request.upload_id)
        return pb.CommitUploadResponse(receipt=receipt_message(receipt, logged))

    def Download(
        self, request: pb.DownloadRequest, _context: Any
    ) -> AsyncGenerator[pb.DownloadResponse]:
        """Send a blob from an offset to its end."""
        return self._downloads.send(caller(), request)

    def Watch(self, request: pb.WatchRequest, _context: Any) -> AsyncGenerator[pb.WatchResponse]:
        """Send events after the cursor, then live ones."""
        return watch(self._context, self._subscriptions, caller(), request)

    async def ReportEvaluation(
        self, request: pb.ReportEvaluationRequest, _context: Any
    ) -> pb.ReportEvaluationResponse:
        """Keep a lab's numbers."""
        first = await asyncio.to_thread(
            take_report, self._context.registry, caller(), evaluation_report(request)
        )
        return pb.ReportEvaluationResponse(first=first)

    async def GetLogHead(
        self, request: pb.GetLogHeadRequest, _context: Any
    ) -> pb.GetLogHeadResponse:
        """Sign a head of the log, and prove that it continues the one that the lab knows."""
        log = self._context.log
        head, proof = await asyncio.to_thread(
            log.continuing, request.known_size, request.size or None
        )
        return pb.GetLogHeadResponse(head=head, proof=proof)

    async def RenewCertificate(
        self, request: pb.RenewCertificateRequest, _context: Any
    ) -> pb.RenewCertificateResponse:
        """Sign a new certificate for the site that calls."""
        if wait := self._renewals.wait(caller()):
            raise BusyError(f"site '{caller()}' renews its certificate too often; wait", wait)
        key = requested_key(request.certificate_request)
        certificate = await asyncio.to_thread(self._members.issue, caller(), Access.SITE, key)
        self._log.info(
            "certificate.renewed", site=caller(), serial=f"{certificate.serial_number:x}"
        )
        return pb.RenewCertificateResponse(
            certificate=to_pem(certificate), authority=to_pem(self._members.authority)
        )


def negotiate(request: pb.GetPlanRequest) -> int:
    """Return the highest protocol version that both sides speak."""
    asked = request.protocol
    chosen = min(asked.maximum, PROTOCOL_MAXIMUM)
    if chosen >= max(asked.minimum, PROTOCOL_MINIMUM):
        return chosen
    older = "coordinator" if asked.minimum > PROTOCOL_MAXIMUM else "site agent"
    raise ProtocolVersionError(
        f"the site agent ({request.agent_version[:64] or 'unknown version'}) speaks protocol "
        f"versions {asked.minimum} to {asked.maximum}, the coordinator ({__version__}) "
        f"{PROTOCOL_MINIMUM} to {PROTOCOL_MAXIMUM}; upgrade the {older}"
    )


class _Requests:
    """A call's requests; gRPC's own iterator keeps the last one until the next is asked for."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> pb.UploadRequest:
        request: Any = await self._context.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        message: pb.UploadRequest = request
        return message
