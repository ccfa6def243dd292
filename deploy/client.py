"""The operator's side of the wire: what the command line asks a coordinator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from rootstock.common.artifacts.gc import Collection, Count
from rootstock.common.errors import NotFoundError
from rootstock.common.protocol import Heads
from rootstock.common.transport.channel import CLIENT_OPTIONS
from rootstock.common.transport.status import error_from_rpc
from rootstock.common.weights.manifest import BlobEntry
from rootstock.protos.rootstock.operator.v1 import operator_pb2, operator_pb2_grpc

if TYPE_CHECKING:
    from rootstock.coordinator.merges.result import LearnedTask, OperatorJoin

_Answer = TypeVar("_Answer")

CALL_SECONDS = 10.0
"""Deadline of a unary call: the answer is a few database rows."""

COLLECTION_SECONDS = 3600.0
"""A collection lists the whole store, and deletes one blob after the other."""


class OperatorClient:
    """A channel with the operator's credentials."""

    def __init__(self, address: str, token: str) -> None:
        self._channel = grpc.insecure_channel(address, options=CLIENT_OPTIONS)
        self._stub = operator_pb2_grpc.OperatorStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    @classmethod
    def of_state(cls, state: Path) -> Self:
        """Connect to the coordinator whose state folder is on this machine.

        Raises
        ------
        NotFoundError
            If no coordinator has run there.
        """
        try:
            address = (state / "address").read_text(encoding="utf-8").strip()
            token = (state / "operator-token").read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{error.filename}: no coordinator has run here; start `rootstock coordinator run`"
            ) from error
        return cls(address, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def status(self) -> operator_pb2.GetStatusResponse:
        """Return sites, submissions and merges.

        Raises
        ------
        UnreachableError
            If the coordinator does not answer.
        IdentityError
            If the token is not its operator's.
        """
        return self._call(self._stub.GetStatus, operator_pb2.GetStatusRequest())

    def decide(self, merge_id: str, *, approve: bool, reason: str) -> str:
        """Approve or reject a merge; return its state when the word was kept.

        Raises
        ------
        NotFoundError, ConflictError
            If there is no such merge, or it is not there to be decided.
        UnreachableError, IdentityError
            See `status`.
        """
        request = operator_pb2.DecideMergeRequest(merge_id=merge_id, approve=approve, reason=reason)
        answer = self._call(self._stub.DecideMerge, request)
        return str(answer.state)

    def grow(self) -> list[str]:
        """Let every operation that is held go ahead; return the merges' ids.

        Raises
        ------
        UnreachableError, IdentityError
            See `status`.
        """
        answer = self._call(self._stub.Grow, operator_pb2.GrowRequest())
        return list(answer.merge_ids)

    def forget_samples(self, submission_id: str) -> int:
        """Delete the samples that came with a submission; return how many there were.

        Raises
        ------
        NotFoundError, ConflictError
            If there are none, or a merge may still learn from them.
        UnreachableError, IdentityError
            See `status`.
        """
        request = operator_pb2.ForgetSamplesRequest(submission_id=submission_id)
        return int(self._call(self._stub.ForgetSamples, request).count)

    def roll_back(
        self, version: int, *, reason: str, and_later: bool
    ) -> operator_pb2.RollBackResponse:
        """Take a net version back.

        Raises
        ------
        NotFoundError, ConflictError
            If there is no such version, it was rolled back before, or others stand on it.
        UnreachableError, IdentityError
            See `status`.
        """
        request = operator_pb2.RollBackRequest(version=version, reason=reason, and_later=and_later)
        return self._call(self._stub.RollBack, request)

    def learn_task(self, task: str, learned: LearnedTask, source: str | None) -> list[str]:
        """See `Operations.learn_task`."""
        request = operator_pb2.LearnTaskRequest(
            task=task, learned=learned.model_dump_json().encode(), source=source or ""
        )
        return list(self._call(self._stub.LearnTask, request).merge_ids)

    def found_net(self, merge_id: str, learned: LearnedTask) -> None:
        """See `Operations.found_net`."""
        request = operator_pb2.FoundNetRequest(
            merge_id=merge_id, learned=learned.model_dump_json().encode()
        )
        self._call(self._stub.FoundNet, request)

    def connect(self, category: str, task: str, join: OperatorJoin) -> str:
        """See `Operations.connect`."""
        request = operator_pb2.ConnectRequest(category=category, task=task, join=join.canonical())
        return str(self._call(self._stub.Connect, request).merge_ids[0])

    def publish_heads(
        self, origin: str, task_modules: Mapping[str, BlobEntry], rotation: BlobEntry | None
    ) -> Heads:
        """See `Operations.publish_heads`."""
        request = operator_pb2.PublishHeadsRequest(
            origin=origin,
            task_modules={name: entry.canonical() for name, entry in task_modules.items()},
            rotation=b"" if rotation is None else rotation.canonical(),
        )
        answer = self._call(self._stub.PublishHeads, request)
        return Heads.parse(answer.heads, what="published heads")

    def retire_heads(self, reason: str) -> Heads:
        """See `Operations.retire_heads`."""
        answer = self._call(self._stub.RetireHeads, operator_pb2.RetireHeadsRequest(reason=reason))
        return Heads.parse(answer.heads, what="retired heads")

    def collect_garbage(self) -> Collection:
        """See `Operations.collect_garbage`."""
        request = operator_pb2.CollectGarbageRequest()
        answer = self._call(self._stub.CollectGarbage, request, seconds=COLLECTION_SECONDS)
        return Collection(
            kept={kind: _count(count) for kind, count in answer.kept.items()},
            deleted=_count(answer.deleted),
            digests=tuple(answer.digests),
        )

    def _call(
        self, method: Callable[..., _Answer], request: object, seconds: float = CALL_SECONDS
    ) -> _Answer:
        try:
            return method(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error


def _count(message: operator_pb2.BlobCount) -> Count:
    return Count(blobs=message.blobs, bytes=message.bytes)
