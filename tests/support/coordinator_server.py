"""A coordinator's server on a free port of this machine, and labs that call it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.identity.credentials import read_credentials
from rootstock.common.identity.keys import SigningKey, key_id, load, load_or_create
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.protocol import PROTOCOL_MAXIMUM, PROTOCOL_MINIMUM, Limits, Plan
from rootstock.common.provenance.statements import sign_manifest
from rootstock.common.transport.channel import open_channel
from rootstock.common.transport.chunks import Span
from rootstock.common.transport.dedup import kept_spans
from rootstock.common.transport.status import error_from_rpc
from rootstock.common.transport.upload import upload_blob, upload_requests
from rootstock.common.weights.manifest import (
    BlobEntry,
    Manifest,
    Recipe,
    RefinementManifest,
    SharedSamples,
    TeacherManifest,
)
from rootstock.common.weights.safetensors_io import read_header, write
from rootstock.coordinator.config import CoordinatorConfig, PlanConfig, ServerConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.merges.result import AcceptedJoin
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.publish import publish_plan
from rootstock.coordinator.registry import MergeState, NetVersion, Registry, SubmissionState
from rootstock.coordinator.service.server import CoordinatorServer
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1.federation_pb2 import DownloadRequest
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from rootstock.site_agent.identity import IdentityFiles
from tests.support.identities import STATES, join_coordinator
from tests.support.in_process_jobs import commit_merge

CHUNK = 4096
ARCHITECTURE = ArchitectureSpec(
    name="small-vgg", settings={"input_size": 32, "width": 16}, split="pool1"
)
CALL_SECONDS = 20.0


def config(state: Path, **server: Any) -> CoordinatorConfig:
    return CoordinatorConfig(
        net="animals",
        state=state,
        server=ServerConfig(
            **{"listen": "127.0.0.1:0", "join_listen": "127.0.0.1:0", **server},
        ),
        plan=PlanConfig(
            architecture=ARCHITECTURE,
            tasks=(TaskSpec(name="classification"),),
            limits=Limits(chunk_bytes=CHUNK, max_shared_samples=10),
        ),
    )


class Running:
    """The server in a thread of its own, on a state folder that outlives it."""

    def __init__(self, state: Path, **server: Any) -> None:
        self.config = config(state, **server)
        self.paths = StatePaths(self.config)
        self.paths.state.mkdir(parents=True, exist_ok=True)
        self.registry = Registry(self.paths.database)
        self.store = LocalStore(Path(self.paths.artifacts))
        self.plan: Plan = publish_plan(self.config, self.store, self.paths.plan)
        self.key: SigningKey = load_or_create(self.paths.key)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        try:
            self.address = self._started.result(timeout=30)
        except BaseException:
            self._thread.join()
            self.registry.close()
            raise

    @property
    def context(self) -> CoordinatorContext:
        return CoordinatorContext(
            registry=self.registry,
            store=self.store,
            plan=self.plan,
            key=self.key,
            config=self.config,
        )

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            context = self.context
            server = CoordinatorServer(
                context, Committer(context), lambda: HistoryState(experiment_id="42")
            )
            address = str(await server.start())
            STATES[address] = self.config.state
            self._started.set_result(address)
        except Exception as error:  # noqa: BLE001 - raised in the test's thread
            self._started.set_exception(error)
            return
        await self._stop.wait()
        await server.drain(0.5)

    def stop(self) -> None:
        if self._thread.is_alive():
            assert self._loop is not None
            assert self._stop is not None
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self.registry.close()


@dataclass
class Teacher:
    """A teacher's manifest and the files that it names."""

    manifest: TeacherManifest
    files: dict[str, Path]


@dataclass
class Refinement:
    """A refined adapter's manifest and the file that it names."""

    manifest: RefinementManifest
    files: dict[str, Path]


class Lab:
    """A site that has joined: with an invitation, unless its folder says so already."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.folder = folder / name
        files = IdentityFiles(self.folder)
        if not files.credentials.exists():
            join_coordinator(address, name, self.folder)
        self.key = load(files.signing_key)
        self.coordinator_key = bytes.fromhex(files.coordinator.read_text())
        self.credentials = read_credentials(files.credentials)
        self.channel = open_channel(address, self.credentials)
        self.stub: Any = FederationStub(self.channel)

    def call(self, method: str, request: Any) -> Any:
        """Make a unary call; its failure is the coordinator's exception."""
        with raising():
            return getattr(self.stub, method)(request, timeout=CALL_SECONDS)

    def plan(self) -> Plan:
        versions = pb.VersionRange(minimum=PROTOCOL_MINIMUM, maximum=PROTOCOL_MAXIMUM)
        answer = self.call("GetPlan", pb.GetPlanRequest(protocol=versions, agent_version="test"))
        return Plan.parse(answer.plan, what="plan")

    def teacher(self, category: str, seed: int = 1, **changes: Any) -> Teacher:
        """Make real weights, and a manifest that tells the truth unless `changes` lie."""
        plan = self.plan()
        category_module, task_modules = initial_modules(plan.architecture, plan.tasks, seed)
        files: dict[str, Path] = {}

        def put(name: str, tensors: Any) -> BlobEntry:
            path = self.folder / f"{name}-{seed}.safetensors"
            entry = write(path, tensors)
            files[entry.digest] = path
            return entry

        if "samples" in changes:
            samples = changes.pop("samples")
            changes["shared_samples"] = SharedSamples(
                count=len(samples["labels"]), blob=put("samples", samples)
            )
        manifest = TeacherManifest(
            site=self.name,
            category=category,
            architecture=plan.architecture,
            category_module=put("f", category_module.state_dict()),
            task_modules={
                name: put(name, module.state_dict()) for name, module in task_modules.items()
            },
            metrics={"error/classification": 5.0, "samples/validation": 100},
            recipe=Recipe(name="supervised"),
            plan=plan.content_digest(),
        )
        return Teacher(manifest.model_copy(update=changes), files)

    def sign(self, document: bytes) -> bytes:
        return sign_manifest(self.key, document, key_id(self.coordinator_key))

    def begin(self, manifest: Manifest, *, leaves_out: bool = False) -> pb.BeginUploadResponse:
        document = manifest.canonical()
        request = pb.BeginUploadRequest(
            manifest=document, signature=self.sign(document), leaves_out=leaves_out
        )
        answer: pb.BeginUploadResponse = self.call("BeginUpload", request)
        return answer

    def send(self, shipped: Teacher | Refinement, upload_id: str, missing: pb.MissingBlob) -> None:
        upload_blob(
            self.stub.Upload,
            shipped.files[missing.digest],
            upload_id=upload_id,
            digest=missing.digest,
            offset=missing.durable_offset,
            chunk_bytes=CHUNK,
            spans=spans_of(shipped, missing),
        )

    def upload(self, messages: list[pb.UploadRequest]) -> pb.UploadResponse:
        """Send messages as they are, however wrong."""
        answer: pb.UploadResponse = self.call("Upload", iter(messages))
        return answer

    def commit(self, upload_id: str) -> pb.Receipt:
        answer: pb.CommitUploadResponse = self.call(
            "CommitUpload", pb.CommitUploadRequest(upload_id=upload_id)
        )
        return answer.receipt

    def ship(self, shipped: Teacher | Refinement, *, leaves_out: bool = False) -> pb.Receipt:
        begun = self.begin(shipped.manifest, leaves_out=leaves_out)
        for missing in begun.missing:
            self.send(shipped, begun.upload_id, missing)
        return self.commit(begun.upload_id)

    def watch(self, instance: str, cursor: int = 0) -> Any:
        return self.stub.Watch(pb.WatchRequest(cursor=cursor, instance=instance))

    def close(self) -> None:
        self.channel.close()


def version_of(
    running: Running, submission_id: str, operation: OperationKind = OperationKind.FOUND
) -> NetVersion | None:
    """Make the next net version of a submission."""
    registry = running.registry
    registry.submissions.set_state(submission_id, SubmissionState.ADMITTED)
    submission = registry.submissions.get(submission_id)
    merge = registry.merges.create(submission_id, submission.category, "classification", operation)
    merge = registry.merges.update(merge.id, numbers=MergeNumbers(teacher_error=5.0))
    if operation is OperationKind.NEW_CATEGORY:
        registry.merges.advance(merge.id, MergeState.DISTILLING)
        registry.merges.advance(merge.id, MergeState.EVALUATING)
    commit_merge(running.context, registry.merges.get(merge.id), submission, AcceptedJoin())
    return registry.versions.head()


@contextmanager
def raising() -> Iterator[None]:
    """Raise what the coordinator raised."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error


def operator_channel(running: Running) -> grpc.Channel:
    """Return a channel of the operator at the coordinator's machine."""
    return open_channel(running.address, read_credentials(running.paths.operator_credentials))


def messages_of(
    teacher: Teacher, upload_id: str, blob: pb.MissingBlob
) -> Iterator[pb.UploadRequest]:
    """Yield the messages of one missing blob, as an agent would."""
    return upload_requests(
        teacher.files[blob.digest],
        upload_id=upload_id,
        digest=blob.digest,
        offset=blob.durable_offset,
        chunk_bytes=CHUNK,
        spans=spans_of(teacher, blob),
    )


def spans_of(shipped: Teacher | Refinement, blob: pb.MissingBlob) -> list[Span] | None:
    """Return what of a blob's file is sent; None: all of it."""
    if not blob.held_tensors:
        return None
    return kept_spans(read_header(shipped.files[blob.digest]), blob.size, set(blob.held_tensors))


def stalled(lab: Lab, teacher: Teacher, upload_id: str, blob: pb.MissingBlob, chunks: int) -> Any:
    """Send some chunks and then nothing more; return the open call once they have arrived."""
    release = threading.Event()

    def messages() -> Iterator[pb.UploadRequest]:
        yield from itertools.islice(messages_of(teacher, upload_id, blob), chunks)
        release.wait()

    call = lab.stub.Upload.future(messages())
    call.add_done_callback(lambda _: release.set())  # the sender's thread ends with the call
    incoming = lab.folder.parent.parent / "state" / "incoming" / lab.name
    arrived = blob.durable_offset + chunks * CHUNK
    deadline = time.monotonic() + 20
    while not any(part.stat().st_size >= arrived for part in incoming.glob(f"{blob.digest}*.part")):
        assert time.monotonic() < deadline, "the chunks did not arrive"
        time.sleep(0.01)
    return call


class LabMaker(Protocol):
    """Makes a lab that has joined."""

    def __call__(self, name: str, *, address: str | None = None) -> Lab: ...


def fetch(lab: Lab, digest: str, offset: int = 0) -> list[pb.DownloadResponse]:
    with raising():
        request = DownloadRequest(digest=digest, offset=offset)
        return list(lab.stub.Download(request, timeout=CALL_SECONDS))
