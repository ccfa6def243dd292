"""The lab's side of every call: signed, with a deadline or an idle time-out, errors by class."""

from __future__ import annotations

import threading
from collections.abc import Callable
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
    SchemaError,
    StorageError,
    UnreachableError,
)
from rootstock.common.files import storage_errors, write_bytes
from rootstock.common.identity.keys import PUBLIC_KEY_BYTES, SigningKey, fingerprint
from rootstock.common.protocol import PROTOCOL_MAXIMUM, PROTOCOL_MINIMUM, Heads, Limits, Plan
from rootstock.common.transport.auth import SigningInterceptor
from rootstock.common.transport.channel import open_channel
from rootstock.common.transport.download import download
from rootstock.common.transport.retry import retrying
from rootstock.common.transport.status import error_from_rpc
from rootstock.common.weights.manifest import BlobEntry
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from rootstock.site_agent import stopping
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.spool.documents import EvaluationReport, SignedReceipt
from rootstock.site_agent.wire.upload import OnBytes, Shipment

T = TypeVar("T")
OnRetry = Callable[[BaseException, float], None]
"""Called with what failed and the seconds until the next try."""

_ATTEMPTS = 3
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


class CoordinatorClient:
    """Calls the coordinator in one site's name.

    What is unreachable, or fails at the coordinator's disk, is tried again with full jitter until
    `stop` is set; any other error is raised at once, in the class that the coordinator raised.

    Parameters
    ----------
    config
        The site's configuration.
    key
        The site's key; signs every call.
    stop
        Ends waiting and sending.
    on_retry
        Told of every failed try.

    Raises
    ------
    ConfigurationError
        If the address is malformed, or not on loopback without TLS.
    """

    def __init__(
        self, config: SiteConfig, key: SigningKey, stop: threading.Event, on_retry: OnRetry
    ) -> None:
        self._config = config
        self._key = key
        self._stop = stop
        self._on_retry = on_retry
        self._channel = open_channel(config.coordinator, [SigningInterceptor(config.site, key)])
        self.stub = FederationStub(self._channel)
        self._plan: Plan | None = None

    def close(self) -> None:
        """End all calls."""
        self._channel.close()

    def patient(self, attempt: Callable[[], T], *, patience_seconds: float | None = None) -> T:
        """Call until the peer answers.

        Parameters
        ----------
        attempt
            One try.
        patience_seconds
            After so long no new try is made; None: for as long as it takes.

        Raises
        ------
        Stopped
            If the agent is asked to stop meanwhile.
        UnreachableError
            If it has not answered for `patience_seconds`.
        RootstockError
            Whatever else the call raises, at once.
        """

        def once() -> T:
            stopping.check(self._stop)
            try:
                return attempt()
            except StorageError as error:
                # Its cause tells whose disk it is: the system's error for the one here.
                if isinstance(error.__cause__, grpc.RpcError):
                    raise waited_for(error) from error
                raise

        policy = retrying(
            patience_seconds=patience_seconds,
            longest_seconds=self._config.network.retry_cap_seconds,
            stop=self._stop,
            on_retry=self._on_retry,
        )
        try:
            return policy(once)
        except UnreachableError:
            stopping.check(self._stop)
            raise

    def join(self) -> bytes:
        """Bind the site's name to its key, and the coordinator's name to its own.

        Returns
        -------
        The coordinator's public key, 32 bytes. The first one is kept in the state folder, and
        another one is refused from then on.

        Raises
        ------
        IdentityError
            If the name belongs to another key, or the coordinator's key has changed.
        UnreachableError
            If the coordinator does not answer.
        """
        request = pb.JoinRequest(
            site=self._config.site,
            public_key=self._key.public_key,
            agent_version=__version__,
        )
        response = self._unary(self.stub.Join, request)
        found: bytes = response.coordinator_public_key
        if len(found) != PUBLIC_KEY_BYTES:
            raise SchemaError(
                f"the coordinator's key has {len(found)} bytes, an Ed25519 key has "
                f"{PUBLIC_KEY_BYTES}; check the coordinator's version"
            )
        path = self._config.state / "identity" / "coordinator.pub"
        with storage_errors(path):
            known = bytes.fromhex(path.read_text(encoding="ascii")) if path.exists() else None
        if known is None:
            write_bytes(path, found.hex().encode())
        elif known != found:
            raise IdentityError(
                f"{self._config.coordinator} has key {fingerprint(found)}, this lab joined "
                f"{fingerprint(known)}; check the address. If the coordinator was set up anew, "
                f"remove {path}"
            )
        return found

    def plan(self) -> Published:
        """Negotiate the protocol version and fetch the plan.

        Raises
        ------
        ProtocolVersionError
            If the two sides speak no common version; names both.
        SchemaError, IntegrityError
            If plan or heads are malformed, or the plan does not match its digest.
        """
        request = pb.GetPlanRequest(
            protocol=pb.VersionRange(minimum=PROTOCOL_MINIMUM, maximum=PROTOCOL_MAXIMUM),
            agent_version=__version__,
        )
        response = self._unary(self.stub.GetPlan, request)
        if not PROTOCOL_MINIMUM <= response.protocol <= PROTOCOL_MAXIMUM:
            raise ProtocolVersionError(
                f"the coordinator (version {response.coordinator_version}) chose protocol "
                f"{response.protocol}, this agent speaks {PROTOCOL_MINIMUM} to {PROTOCOL_MAXIMUM}; "
                "update the older of the two"
            )
        plan = Plan.parse(response.plan, what="plan")
        if plan.content_digest() != response.plan_digest:
            raise IntegrityError(
                f"the plan has digest {plan.content_digest()}, the coordinator says "
                f"{response.plan_digest}; update the older of the two"
            )
        self._plan = plan
        heads = Heads.parse(response.heads, what="plan's heads") if response.heads else None
        return Published(plan, response.plan_digest, heads)

    def ship(self, shipment: Shipment) -> SignedReceipt:
        """Send what the coordinator lacks of an entry, from where it was cut, and commit it.

        Raises
        ------
        Stopped
            If the agent is asked to stop; the coordinator keeps what it has.
        RefusedError
            If the coordinator refuses the manifest or a blob; says the check.
        """
        return self._unharmed(
            lambda: shipment.send(
                self.stub,
                self._unary,
                limits=self._limits(),
                idle_seconds=self._config.network.idle_seconds,
                stop=self._stop,
            )
        )

    def download(self, blob: BlobEntry, folder: Path, on_bytes: OnBytes) -> Path:
        """Fetch a blob into a folder, named by its digest; one that is there costs nothing.

        Raises
        ------
        LimitError
            If the blob is larger than the plan allows.
        IntegrityError
            If what came does not match the digest, several times over.
        """
        limit = self._limits().max_blob_bytes
        if blob.size > limit:
            raise LimitError(f"blob {blob.digest} has {blob.size} bytes, the limit is {limit}")

        def progress(done: int) -> None:
            stopping.check(self._stop)
            on_bytes(done, blob.size)

        def once() -> Path:
            return download(
                self.stub.Download,
                blob.digest,
                folder / blob.digest,
                max_bytes=limit,
                size=blob.size,
                idle_seconds=self._config.network.idle_seconds,
                progress=progress,
            )

        return self._unharmed(once)

    def report(self, report: EvaluationReport) -> bool:
        """Send numbers; False if the coordinator knew them already."""
        refined = report.refined_calibration
        request = pb.ReportEvaluationRequest(
            evaluation_id=report.evaluation_id,
            results=[
                pb.CandidateResult(
                    name=result.name,
                    error=result.error,
                    mean_iou=result.mean_iou,
                    samples=result.samples,
                    calibration=result.calibration.message() if result.calibration else None,
                )
                for result in report.results
            ],
            refinement_manifest_digest=report.refinement_manifest_digest or "",
            refined_error=report.refined_error or 0.0,
            refined_mean_iou=report.refined_mean_iou,
            refinement_seconds=report.refinement_seconds,
            refinement_steps=report.refinement_steps,
            failure=report.failure,
            refined_calibration=refined.message() if refined else None,
        )
        response = self.patient(lambda: self._unary(self.stub.ReportEvaluation, request))
        return bool(response.first)

    def _unharmed(self, attempt: Callable[[], T]) -> T:
        """Be patient, and try anew what arrives damaged."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return self.patient(attempt)
            except IntegrityError:
                continue
        return self.patient(attempt)

    def _unary(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._config.network.call_seconds)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error

    def _limits(self) -> Limits:
        if self._plan is None:
            raise ConfigurationError("the plan's limits are not known; call plan() first")
        return self._plan.limits
