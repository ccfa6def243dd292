"""The Enrolment service: those who were invited join. It is open to strangers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from rootstock.common.errors import BusyError
from rootstock.common.identity.certificates import to_pem
from rootstock.coordinator.identity.members import JoinRequest, Members
from rootstock.coordinator.identity.rate import RateLimit
from rootstock.protos.rootstock.join.v1 import join_pb2 as pb
from rootstock.protos.rootstock.join.v1.join_pb2_grpc import EnrolmentServicer

MAX_MESSAGE_BYTES = 64 << 10
"""A request has a token, a kilobyte of PEM and two keys."""

CONNECTION_SECONDS = 30.0
"""A stranger's connection ends after this, so that a call that stalls in the middle of its message
does not keep its place: gRPC counts it from its first byte."""

MAX_CALLS = 8
"""At once; each holds a thread for some milliseconds."""

_ALL = ""


class Enrolment(EnrolmentServicer):
    """Takes tokens, at a bounded rate: ten a second in all, and one in ten seconds for each."""

    def __init__(
        self, members: Members, coordinator_public_key: bytes, port: Callable[[], int]
    ) -> None:
        self._members = members
        self._coordinator_public_key = coordinator_public_key
        self._port = port
        self._in_all = RateLimit(10, 50)
        self._of_each = RateLimit(0.1, 5)
        self._log = structlog.get_logger("enrolment")

    async def Join(self, request: pb.JoinRequest, _context: Any) -> pb.JoinResponse:
        """Trade an invitation for a certificate."""
        token_id = request.token.partition(".")[0]
        if wait := self._in_all.wait(_ALL) or self._of_each.wait(token_id):
            raise BusyError("too many tries to join; wait, and run the line again", wait)
        joined = await asyncio.to_thread(
            self._members.join,
            JoinRequest(
                token=request.token,
                certificate_request=request.certificate_request,
                signing_key=request.signing_key,
                proof=request.proof,
            ),
        )
        self._log.info(
            "member.joined",
            name=joined.name,
            access=joined.access,
            serial=f"{joined.certificate.serial_number:x}",
            agent=request.agent_version[:64],
        )
        return pb.JoinResponse(
            certificate=to_pem(joined.certificate),
            name=joined.name,
            access=joined.access,
            coordinator_public_key=self._coordinator_public_key,
            port=self._port(),
        )
