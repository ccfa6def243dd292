"""Two labs say anything in any order to a real server; what it holds and signs stays right.

The model knows what each lab has sent. Labs send their own uploads and each other's, whole and in
part, at right and wrong offsets, commit too early and twice, and restart the coordinator.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from rootstock.common.errors import IdentityError, NotFoundError, RefusedError, RootstockError
from rootstock.common.files import file_digest
from rootstock.coordinator.registry import SubmissionState
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from tests.support.coordinator_server import Lab, Running, Teacher, fetch, messages_of

NAMES = ("cat-lab", "dog-lab")
EXAMPLES, STEPS = 8, 25


class Protocol(RuleBasedStateMachine):
    """Rules are what labs may say; invariants what a coordinator promises."""

    uploads = Bundle("uploads")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        root = Path(self._folder.name)
        self._state = root / "state"
        self._running = Running(self._state)
        self._labs = {name: Lab(name, self._running.address, root / "labs") for name in NAMES}
        self._teachers: dict[str, dict[int, Teacher]] = {name: {} for name in NAMES}
        self._receipts: dict[str, pb.Receipt] = {}
        self._owners: dict[str, str] = {}

    def teardown(self) -> None:
        for lab in self._labs.values():
            lab.close()
        self._running.stop()
        self._folder.cleanup()

    @initialize(target=uploads)
    def first(self) -> tuple[str, int, str]:
        return self._begun("cat-lab", 1)

    @rule(target=uploads, name=st.sampled_from(NAMES), seed=st.integers(1, 2))
    def begins(self, name: str, seed: int) -> tuple[str, int, str]:
        return self._begun(name, seed)

    def _begun(self, name: str, seed: int) -> tuple[str, int, str]:
        teachers = self._teachers[name]
        if seed not in teachers:
            own = seed + 10 * NAMES.index(name)  # equal weights would be equal blobs
            teachers[seed] = self._labs[name].teacher(f"{name}-{seed}", own)
        begun = self._labs[name].begin(teachers[seed].manifest)
        digest = teachers[seed].manifest.content_digest()
        assert not (digest in self._receipts and begun.missing)
        assert self._owners.setdefault(begun.upload_id, name) == name
        return name, seed, begun.upload_id

    @rule(upload=uploads, whole=st.booleans())
    def sends(self, upload: tuple[str, int, str], whole: bool) -> None:
        name, seed, upload_id = upload
        lab, teacher = self._labs[name], self._teachers[name][seed]
        for missing in lab.begin(teacher.manifest).missing:
            messages = list(messages_of(teacher, upload_id, missing))
            sent = messages if whole else messages[: max(1, len(messages) // 2)]
            answer = lab.upload(sent)
            assert answer.durable_offset == sent[-1].offset + len(sent[-1].data)
            if not whole:
                break

    @rule(upload=uploads, fault=st.sampled_from(["offset", "checksum", "digest", "bytes", "late"]))
    def sends_wrongly(self, upload: tuple[str, int, str], fault: str) -> None:
        name, seed, upload_id = upload
        lab, teacher = self._labs[name], self._teachers[name][seed]
        missing = lab.begin(teacher.manifest).missing
        if not missing:
            return
        (first, *_) = messages_of(teacher, upload_id, missing[0])
        match fault:
            case "offset":
                first.offset += 1
            case "late":
                first.offset += 1 << 40
            case "checksum":
                first.crc32 ^= 1
            case "digest":
                first.digest = "0" * 64
            case "bytes":
                first.data = first.data + bytes(1 << 20)
                first.crc32 = zlib.crc32(first.data)
        self._refused(lambda: lab.upload([first]))

    @rule(upload=uploads, thief=st.sampled_from(NAMES))
    def steals(self, upload: tuple[str, int, str], thief: str) -> None:
        """Another lab sends, commits and downloads by what it has overheard."""
        name, seed, upload_id = upload
        if thief == name:
            return
        lab, teacher = self._labs[thief], self._teachers[name][seed]
        digest = teacher.manifest.category_module.digest
        chunk = pb.UploadRequest(upload_id=upload_id, digest=digest, data=b"x", crc32=1)
        assert self._refused(lambda: lab.upload([chunk])) is NotFoundError
        assert self._refused(lambda: lab.commit(upload_id)) is NotFoundError
        assert self._refused(lambda: fetch(lab, digest)) is NotFoundError
        assert self._refused(lambda: lab.begin(teacher.manifest)) is IdentityError

    @rule(upload=uploads)
    def commits(self, upload: tuple[str, int, str]) -> None:
        name, seed, upload_id = upload
        lab, teacher = self._labs[name], self._teachers[name][seed]
        missing = lab.begin(teacher.manifest).missing
        digest = teacher.manifest.content_digest()
        if missing:
            assert digest not in self._receipts
            self._refused(lambda: lab.commit(upload_id))
            return
        receipt = lab.commit(upload_id)
        known = self._receipts.setdefault(digest, receipt)
        # Again: the same, under a head of the log that is signed anew after a restart.
        assert (known.submission_id, known.received_at, known.signature) == (
            receipt.submission_id,
            receipt.received_at,
            receipt.signature,
        )
        assert fetch(lab, teacher.manifest.category_module.digest)

    @rule(name=st.sampled_from(NAMES), evaluation=st.sampled_from(["evl-0001", "", "../x"]))
    def reports_what_was_not_asked(self, name: str, evaluation: str) -> None:
        request = pb.ReportEvaluationRequest(evaluation_id=evaluation, failure="none")
        self._refused(lambda: self._labs[name].call("ReportEvaluation", request))

    @precondition(lambda self: self._receipts)
    @rule()
    def the_coordinator_is_started_again(self) -> None:
        self._running.stop()
        port = int(self._running.address.rpartition(":")[2])
        self._running = Running(self._state, listen=f"127.0.0.1:{port}")

    @invariant()
    def what_was_acknowledged_is_there(self) -> None:
        registry, store = self._running.registry, self._running.store
        received = {s.manifest_digest for s in registry.submissions.all(SubmissionState.RECEIVED)}
        assert received == set(self._receipts)
        for name in NAMES:
            for teacher in self._teachers[name].values():
                if teacher.manifest.content_digest() in received:
                    for blob in teacher.manifest.blobs():
                        assert file_digest(store.local_path(blob.digest)) == blob.digest

    def _refused(self, call: Any) -> type[RootstockError]:
        try:
            call()
        except (IdentityError, RefusedError, NotFoundError) as error:
            return type(error)
        raise AssertionError("it was taken")


Protocol.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    # To shrink what failed takes minutes: each step is a call to a real server.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
TestProtocol = Protocol.TestCase
