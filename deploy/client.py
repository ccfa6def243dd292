"""The operator's side of the wire: calls to a coordinator that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from rootstock.common.artifacts.gc import Collection, Count
from rootstock.common.errors import IdentityError, NotFoundError, UnreachableError
from rootstock.common.files import lock_owner
from rootstock.common.identity.credentials import read_credentials
from rootstock.common.protocol import Heads
from rootstock.common.transport.channel import open_channel
from rootstock.common.transport.status import error_from_rpc, from_peer
from rootstock.common.weights.manifest import BlobEntry
from rootstock.protos.rootstock.operator.v1 import operator_pb2 as pb
from rootstock.protos.rootstock.operator.v1 import operator_pb2_grpc

if TYPE_CHECKING:
    from rootstock.coordinator.identity.members import MemberState, Offer
    from rootstock.coordinator.merges.result import LearnedTask, OperatorJoin
    from rootstock.coordinator.registry import Access

_Answer = TypeVar("_Answer")

CALL_SECONDS = 10.0
"""Deadline of a unary call: the answer is a few database rows."""

COLLECTION_SECONDS = 3600.0
"""A collection lists the whole store, and deletes one blob after the other."""


class OperatorClient:
    """Calls a coordinator with the operator's certificate, which is in its state folder.

    Every call raises what the coordinator raised, `UnreachableError` if it does not answer, and
    `IdentityError` if another one does. NotFoundError: none has run there yet. What answers at the
    address of a coordinator that does not run is another one, which took its port.
    """

    def __init__(self, state: Path) -> None:
        """Connect to the coordinator whose state folder is on this machine."""
        self._state = state
        try:
            self._address = (state / "address").read_text(encoding="utf-8").strip()
            own = read_credentials(state / "identity" / "operator.pem")
        except (FileNotFoundError, NotFoundError) as error:
            if lock_owner(state) is not None:
                raise UnreachableError(
                    f"the coordinator of {state} starts; try again, and look into its log"
                ) from error
            raise NotFoundError(
                f"{state}: no coordinator has run here; start `rootstock coordinator run`"
            ) from error
        self._channel = open_channel(self._address, own)
        self._stub = operator_pb2_grpc.OperatorStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def status(self) -> pb.GetStatusResponse:
        """Return sites, submissions and merges."""
        return self._call(self._stub.GetStatus, pb.GetStatusRequest())

    def decide(self, merge_id: str, *, approve: bool, reason: str) -> str:
        """Approve or reject a merge; return its state after the decision."""
        request = pb.DecideMergeRequest(merge_id=merge_id, approve=approve, reason=reason)
        return str(self._call(self._stub.DecideMerge, request).state)

    def grow(self) -> list[str]:
        """Let every operation that is held go ahead; return the merges' ids."""
        return list(self._call(self._stub.Grow, pb.GrowRequest()).merge_ids)

    def forget_samples(self, submission_id: str) -> int:
        """Delete the samples that came with a submission; return how many there were."""
        request = pb.ForgetSamplesRequest(submission_id=submission_id)
        return int(self._call(self._stub.ForgetSamples, request).count)

    def roll_back(self, version: int, *, reason: str, and_later: bool) -> pb.RollBackResponse:
        """Take a net version back."""
        request = pb.RollBackRequest(version=version, reason=reason, and_later=and_later)
        return self._call(self._stub.RollBack, request)

    def learn_task(self, task: str, learned: LearnedTask, source: str | None) -> list[str]:
        """Queue the joins of a learned task module; return the merges' ids."""
        request = pb.LearnTaskRequest(
            task=task, learned=learned.model_dump_json().encode(), source=source or ""
        )
        return list(self._call(self._stub.LearnTask, request).merge_ids)

    def found_net(self, merge_id: str, learned: LearnedTask) -> None:
        """Let the held merge found the net on a learned task module."""
        request = pb.FoundNetRequest(merge_id=merge_id, learned=learned.model_dump_json().encode())
        self._call(self._stub.FoundNet, request)

    def connect(self, category: str, task: str, join: OperatorJoin) -> str:
        """Queue a further join; return the merge's id."""
        request = pb.ConnectRequest(category=category, task=task, join=join.canonical())
        return str(self._call(self._stub.Connect, request).merge_ids[0])

    def publish_heads(
        self, origin: str, task_modules: Mapping[str, BlobEntry], rotation: BlobEntry | None
    ) -> Heads:
        """Publish auxiliary heads in place of those there are."""
        request = pb.PublishHeadsRequest(
            origin=origin,
            task_modules={name: entry.canonical() for name, entry in task_modules.items()},
            rotation=b"" if rotation is None else rotation.canonical(),
        )
        answer = self._call(self._stub.PublishHeads, request)
        return Heads.parse(answer.heads, what="published heads")

    def retire_heads(self, reason: str) -> Heads:
        """Take the published heads back; return them."""
        answer = self._call(self._stub.RetireHeads, pb.RetireHeadsRequest(reason=reason))
        return Heads.parse(answer.heads, what="retired heads")

    def invite(self, name: str, access: Access, seconds: float, *, again: bool = False) -> Offer:
        """Invite someone to join under a name, once."""
        from rootstock.coordinator.identity.members import Offer

        request = pb.InviteRequest(name=name, access=access, seconds=seconds, again=again)
        answer = self._call(self._stub.Invite, request)
        return Offer(answer.token, answer.address, answer.authority)

    def list_members(self) -> list[MemberState]:
        """Return sites, operators and invitations."""
        from rootstock.coordinator.identity.members import MemberState
        from rootstock.coordinator.registry import Access

        answer = self._call(self._stub.ListMembers, pb.ListMembersRequest())
        return [
            MemberState(
                each.name, Access(each.access), each.state, each.reason, each.expires_at or None
            )
            for each in answer.members
        ]

    def disable(self, name: str, reason: str) -> None:
        """Refuse a site's calls until it is enabled."""
        request = pb.SetSiteEnabledRequest(name=name, enabled=False, reason=reason)
        self._call(self._stub.SetSiteEnabled, request)

    def enable(self, name: str) -> None:
        """Take a site's calls again."""
        request = pb.SetSiteEnabledRequest(name=name, enabled=True)
        self._call(self._stub.SetSiteEnabled, request)

    def revoke(self, name: str, reason: str, *, operator: bool = False) -> int:
        """Revoke all certificates of a site or an operator; return how many were good till now."""
        request = pb.RevokeMemberRequest(name=name, operator=operator, reason=reason)
        return int(self._call(self._stub.RevokeMember, request).revoked)

    def collect_garbage(self) -> Collection:
        """Delete the blobs that nothing needs any more; return what was there."""
        request = pb.CollectGarbageRequest()
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
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            said = error_from_rpc(error)
            if from_peer(error):
                raise said from error
            another = isinstance(said, IdentityError) and lock_owner(self._state) is None
            if not another and not isinstance(said, UnreachableError):
                raise said from error
            raise self._unreachable(error.code().name) from error

    def _unreachable(self, why: str) -> UnreachableError:
        if lock_owner(self._state) is not None:
            return UnreachableError(
                f"the coordinator of {self._state} runs and does not answer at {self._address} "
                f"({why}): it starts, stops or is busy; try again, and look into its log"
            )
        return UnreachableError(
            f"the coordinator of {self._state} does not run; start it: rootstock coordinator run"
            " --config coordinator.toml"
        )


def _count(message: pb.BlobCount) -> Count:
    return Count(blobs=message.blobs, bytes=message.bytes)
