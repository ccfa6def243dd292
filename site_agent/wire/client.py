"""The lab's side of every call: who it is, a deadline or an idle time-out, errors by class."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc

from rootstock import __version__
from rootstock.common.errors import (
    ConfigurationError,
    IdentityError,
    IntegrityError,
    LimitError,
    ProtocolVersionError,
    RootstockError,
    StorageError,
    UnreachableError,
)
from rootstock.common.identity.certificates import (
    authority_fingerprint,
    half_life,
    make_request,
    new_key,
    parse,
    succeeds,
)
from rootstock.common.identity.credentials import Credentials
from rootstock.common.protocol import PROTOCOL_MAXIMUM, PROTOCOL_MINIMUM, Heads, Limits, Plan
from rootstock.common.text import one_line
from rootstock.common.transport.channel import open_channel
from rootstock.common.transport.download import download
from rootstock.common.transport.retry import retrying
from rootstock.common.transport.status import error_from_rpc
from rootstock.common.weights.manifest import BlobEntry
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.coordinator_log import LogAnswer
from rootstock.site_agent.identity import IdentityFiles, identity_of, site_credentials
from rootstock.site_agent.spool.documents import EvaluationReport
from rootstock.site_agent.state import check
from rootstock.site_agent.wire import messages

T = TypeVar("T")
OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""
OnRetry = Callable[[BaseException, float], None]
"""Called with what failed and the seconds until the next try."""

DAMAGED_TRIES = 3
"""How often a blob that arrives damaged is tried: the network did it, or one side's disk does."""


def waited_for(error: RootstockError) -> RootstockError:
    """Return the coordinator's error as one that is tried again, if its people can mend it."""
    if isinstance(error, StorageError):
        return UnreachableError(f"the coordinator cannot store: {error}")
    return error


class Published(NamedTuple):
    """What a coordinator asks of labs now."""

    plan: Plan
    digest: str
    """The plan's."""
    heads: Heads | None
    """Auxiliary heads for recipe `compatible`, if there are any."""
    refusal: str = ""
    """Why the net has no room for the teacher net that this lab is to train, if it has not."""


class CoordinatorClient:
    """Calls the coordinator in one site's name.

    What is unreachable, or fails at the coordinator's disk, is tried again with full jitter until
    `stop`, which also ends sending, is set (None: nothing but Ctrl-C ends it); `on_retry` is called
    after every failed try. Any other error is raised at once, in the class that the coordinator
    raised.
    """

    def __init__(self, config: SiteConfig, stop: threading.Event | None, on_retry: OnRetry) -> None:
        """Open a channel with the lab's certificate; NotFoundError if it has not joined."""
        self._config = config
        self._on_retry = on_retry
        self._plan: Plan | None = None
        self.stop = stop
        self.network = config.network
        self._channels: list[grpc.Channel] = []
        self._use(site_credentials(config))

    def _use(self, credentials: Credentials) -> None:
        """Make calls from now on with these credentials; those under way go on with the former."""
        self._credentials = credentials
        self._identity = identity_of(credentials)
        channel = open_channel(self._config.coordinator, credentials)
        self.stub = FederationStub(channel)
        # A half of a certificate's lifetime was enough for the calls on the one before the last.
        for each in self._channels[:-1]:
            each.close()
        self._channels = [*self._channels[-1:], channel]

    def close(self) -> None:
        """End all calls."""
        for channel in self._channels:
            channel.close()

    def require_certificate(self) -> None:
        """Raise IdentityError, with the remedy, once the lab's certificate is no longer good.

        The coordinator ends such a connection in its handshake, which looks like one that does not
        answer.
        """
        self._identity.require_valid(datetime.now(UTC))

    def seconds_to_renewal(self) -> float:
        """Return how long the certificate is good for without a renewal; 0 after that."""
        left = half_life(self._credentials.certificate) - datetime.now(UTC)
        return max(0.0, left.total_seconds())

    def renew(self) -> None:
        """Try once to replace key and certificate by new ones, and use them."""
        self.require_certificate()
        key = new_key()
        request = pb.RenewCertificateRequest(certificate_request=make_request(key))
        answer = self.unary(self.stub.RenewCertificate, request)
        authority = self._credentials.authority
        if answer.authority:
            offered = parse(answer.authority)
            if not succeeds(offered, authority):
                raise IdentityError(
                    "the coordinator presents another authority "
                    f"({authority_fingerprint(offered)}) than this lab joined; ask its operator"
                )
            authority = offered
        renewed = Credentials(key, parse(answer.certificate), authority)
        if identity_of(renewed).name != self._config.site:
            raise IdentityError(
                f"the coordinator renewed '{self._config.site}' with a certificate of "
                f"'{identity_of(renewed).name}'; check the coordinator's version"
            )
        renewed.write(IdentityFiles(self._config.state).credentials)
        self._use(renewed)

    def patient(
        self,
        attempt: Callable[[], T],
        *,
        patience_seconds: float | None = None,
        damaged_tries: int = 1,
    ) -> T:
        """Call until the coordinator answers.

        UnreachableError is raised after so many seconds of patience, None being for ever;
        IntegrityError after so many tries whose bytes arrived damaged.
        """

        def once() -> T:
            check(self.stop)
            self.require_certificate()
            try:
                return attempt()
            except StorageError as error:
                # Its cause tells whose disk it is: the system's error for the one here.
                if isinstance(error.__cause__, grpc.RpcError):
                    raise waited_for(error) from error
                raise

        policy = retrying(
            patience_seconds=patience_seconds,
            longest_seconds=self.network.retry_cap_seconds,
            stop=self.stop,
            on_retry=self._on_retry,
        )
        while True:
            damaged_tries -= 1
            try:
                return policy(once)
            except IntegrityError:
                if damaged_tries == 0:
                    raise
            except UnreachableError:
                check(self.stop)
                raise

    def unary(self, method: Any, request: Any) -> Any:
        """Make one call, whose error is raised in the class that the coordinator raised."""
        try:
            return method(request, timeout=self.network.call_seconds)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error

    @property
    def limits(self) -> Limits:
        """The caps of the plan that was fetched last."""
        if self._plan is None:
            raise ConfigurationError("the plan's limits are not known; call plan() first")
        return self._plan.limits

    def plan(self) -> Published:
        """Negotiate the protocol version and fetch the plan and the heads, both checked."""
        request = pb.GetPlanRequest(
            protocol=pb.VersionRange(minimum=PROTOCOL_MINIMUM, maximum=PROTOCOL_MAXIMUM),
            agent_version=__version__,
            category=self._config.category,
            tasks=self._config.tasks or (),
            new_version=self._config.new_version,
        )
        response = self.unary(self.stub.GetPlan, request)
        if not PROTOCOL_MINIMUM <= response.protocol <= PROTOCOL_MAXIMUM:
            raise ProtocolVersionError(
                f"the coordinator (version {one_line(response.coordinator_version, 40)}) chose "
                f"protocol {response.protocol}, this agent speaks {PROTOCOL_MINIMUM} to "
                f"{PROTOCOL_MAXIMUM}; update the older of the two"
            )
        plan = Plan.parse(response.plan, what="plan")
        if plan.content_digest() != response.plan_digest:
            raise IntegrityError(
                f"the plan has digest {plan.content_digest()}, the coordinator says "
                f"{response.plan_digest}; update the older of the two"
            )
        self._plan = plan
        heads = Heads.parse(response.heads, what="plan's heads") if response.heads else None
        return Published(plan, response.plan_digest, heads, one_line(response.refusal))

    def download(
        self,
        blob: BlobEntry,
        folder: Path,
        on_bytes: OnBytes,
        *,
        damaged_tries: int = DAMAGED_TRIES,
    ) -> Path:
        """Fetch a blob into a folder, named by its digest; one that is there costs nothing."""
        limit = min(self.limits.max_blob_bytes, self._config.consent.max_blob_bytes)
        if blob.size > limit:
            raise LimitError(f"blob {blob.digest} has {blob.size} bytes, the limit is {limit}")

        def progress(done: int) -> None:
            check(self.stop)
            on_bytes(done, blob.size)

        def once() -> Path:
            return download(
                self.stub.Download,
                blob.digest,
                folder / blob.digest,
                max_bytes=limit,
                size=blob.size,
                idle_seconds=self.network.idle_seconds,
                progress=progress,
            )

        return self.patient(once, damaged_tries=damaged_tries)

    def log_head(self, known_size: int, size: int = 0) -> LogAnswer:
        """Ask for a head of the coordinator's log, the newest by default; nothing is verified."""
        request = pb.GetLogHeadRequest(known_size=known_size, size=size)
        answer = self.patient(lambda: self.unary(self.stub.GetLogHead, request))
        return LogAnswer(answer.head, list(answer.proof))

    def report(self, report: EvaluationReport) -> bool:
        """Send numbers; False if the coordinator knew them already."""
        request = messages.report_request(report)
        response = self.patient(lambda: self.unary(self.stub.ReportEvaluation, request))
        return bool(response.first)
