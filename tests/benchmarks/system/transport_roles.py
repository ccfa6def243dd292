"""The processes of ``bench transport``; each prints its answer as one line of JSON."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.identity.keys import key_id, load, load_or_create
from rootstock.common.logs import log_to
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.protocol import Plan
from rootstock.common.provenance.statements import sign_manifest
from rootstock.common.transport.channel import CLIENT_OPTIONS, server_options
from rootstock.common.weights.manifest import Recipe, TeacherManifest
from rootstock.coordinator.config import CoordinatorConfig, PlanConfig, ServerConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.identity.members import open_members
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import Registry
from rootstock.coordinator.service.server import CoordinatorServer
from rootstock.deploy.federation.enrol import enrol_site
from rootstock.protos.rootstock.federation.v1 import federation_pb2
from rootstock.site_agent.config import DataConfig, SiteConfig
from rootstock.site_agent.identity import IdentityFiles, coordinator_key
from rootstock.site_agent.spool.spool import Spool
from rootstock.site_agent.teacher.package import write_blob
from rootstock.site_agent.wire.client import CoordinatorClient
from rootstock.site_agent.wire.upload import Shipment
from tests.benchmarks.harness.memory import PeakMemory

CHUNK_BYTES = 1 << 20
BARE = "/rootstock.bench.Bare/Send"
TASK = TaskSpec(name="classification")
INPUT_SIZE, WIDTH = 96, 128
BYTES_PER_HIDDEN = 4 * (4 * WIDTH) * (INPUT_SIZE // 8) ** 2
"""float32 × channels × pixels after three poolings: what one hidden unit adds to fc6."""


def prepare(folder: Path, payload_bytes: int) -> dict[str, Any]:
    """Write a teacher net into a site's spool, and the plan that asks for it."""
    hidden = max(4, round(payload_bytes / BYTES_PER_HIDDEN))
    settings = {"input_size": INPUT_SIZE, "width": WIDTH, "hidden": hidden}
    spec = ArchitectureSpec(name="small-vgg", settings=settings, split="pool1")
    category_module, task_modules = initial_modules(spec, [TASK], seed=0)
    spool = Spool(folder / "site" / "spool", _say, coordinator=b"none yet")
    load_or_create(IdentityFiles(folder / "site").signing_key)
    with spool.staging() as staging:
        category_blob = write_blob(staging, category_module.state_dict())
        task_blob = write_blob(staging, task_modules[TASK.name].state_dict())
        plan = Plan(
            net="bench",
            architecture=spec,
            tasks=(TASK,),
            initial_category_module=category_blob,
            initial_task_modules={TASK.name: task_blob},
        )
        manifest = TeacherManifest(
            site="bench-lab",
            category="cat",
            architecture=spec,
            category_module=category_blob,
            task_modules={TASK.name: task_blob},
            metrics={f"error/{TASK.name}": 50.0},
            recipe=Recipe(name="untrained"),
            plan=plan.content_digest(),
        )
        spool.commit(staging, manifest, "bench")
    (folder / "plan.json").write_bytes(plan.canonical())
    return {"payload_bytes": category_blob.size + task_blob.size}


def serve(folder: Path) -> dict[str, Any]:
    """Be a coordinator's server until standard input closes; a fresh database and store."""
    plan = plan_of(folder)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        state = Path(name)
        config = CoordinatorConfig(
            net=plan.net,
            state=state,
            server=ServerConfig(listen="127.0.0.1:0"),
            plan=PlanConfig(architecture=plan.architecture),
        )
        registry = Registry(f"sqlite:///{state / 'registry.sqlite'}")
        context = CoordinatorContext(
            registry=registry,
            store=LocalStore(state / "artifacts"),
            plan=plan,
            key=load_or_create(StatePaths(config).key),
            config=config,
        )
        server = CoordinatorServer(context, Committer(context), HistoryState)
        with open_members(config) as members:
            enrol_site(members, "bench-lab", folder / "site", context.key.public_key)

        async def run() -> int:
            print(str(await server.start()), flush=True)
            memory = PeakMemory()
            await asyncio.to_thread(sys.stdin.read)
            growth = memory.growth()
            await server.drain(0.5)
            return growth

        growth = asyncio.run(run())
        registry.close()
    return {"rss_growth": growth}


def ship(folder: Path, address: str) -> dict[str, Any]:
    """Be the site: fetch the plan, ship the spool's entry, verify the receipt."""
    # A spool of its own each round: the receipt empties it.
    with tempfile.TemporaryDirectory(dir=folder) as name:
        state = Path(name) / "site"
        shutil.copytree(folder / "site", state, copy_function=_link)
        config = SiteConfig(
            site="bench-lab",
            coordinator=address,
            state=state,
            category="cat",
            data=DataConfig(kind="digits"),
        )
        client = CoordinatorClient(config, threading.Event(), lambda *_: None)
        client.plan()
        known = coordinator_key(config)
        spool = Spool(state / "spool", _say, known)
        (stored,) = spool.all()
        entry = spool.queue(stored)
        assert entry is not None  # it was written whole
        signature = sign_manifest(
            load(IdentityFiles(state).signing_key), entry.manifest_bytes, key_id(known)
        )
        memory = PeakMemory()
        begun = time.perf_counter()
        receipt = Shipment(client, entry, signature).send()
        seconds = time.perf_counter() - begun
        growth = memory.growth()
        receipt.verify(entry.digest, known)
        client.close()
    return {"seconds": seconds, "rss_growth": growth}


def serve_bare(_folder: Path) -> dict[str, Any]:
    """Be a servicer that takes a stream of chunks and drops them, until standard input closes."""

    async def drop(messages: AsyncIterator[Any], _context: object) -> Any:
        size = 0
        async for message in messages:
            size += len(message.data)
        return federation_pb2.UploadResponse(durable_offset=size)

    async def run() -> int:
        server = grpc.aio.server(options=server_options())
        handler = grpc.stream_unary_rpc_method_handler(
            drop,
            request_deserializer=federation_pb2.UploadRequest.FromString,
            response_serializer=federation_pb2.UploadResponse.SerializeToString,
        )
        service, method = BARE.strip("/").split("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"127.0.0.1:{port}", flush=True)
        memory = PeakMemory()
        await asyncio.to_thread(sys.stdin.read)
        growth = memory.growth()
        await server.stop(0.5)
        return growth

    return {"rss_growth": asyncio.run(run())}


def send_bare(folder: Path, address: str) -> dict[str, Any]:
    """Send the same files in one bare stream."""
    manifest = plan_of(folder)
    blobs = [manifest.initial_category_module, *manifest.initial_task_modules.values()]
    entry_folder = next(path.parent for path in (folder / "site" / "spool").rglob(blobs[0].digest))

    def messages() -> Iterator[Any]:
        for blob in blobs:
            with (entry_folder / blob.digest).open("rb") as file:
                while data := file.read(CHUNK_BYTES):
                    yield federation_pb2.UploadRequest(data=data)

    with grpc.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
        call = channel.stream_unary(
            BARE,
            request_serializer=federation_pb2.UploadRequest.SerializeToString,
            response_deserializer=federation_pb2.UploadResponse.FromString,
        )
        memory = PeakMemory()
        begun = time.perf_counter()
        answer = call(messages())
        seconds = time.perf_counter() - begun
        growth = memory.growth()
    if answer.durable_offset != sum(blob.size for blob in blobs):
        raise SystemExit(f"{answer.durable_offset} bytes arrived")
    return {"seconds": seconds, "rss_growth": growth}


def plan_of(folder: Path) -> Plan:
    return Plan.parse((folder / "plan.json").read_bytes(), what="plan")


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")


ROLES: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": lambda folder, size: prepare(folder, int(size)),
    "serve": serve,
    "ship": ship,
    "serve-bare": serve_bare,
    "send-bare": send_bare,
}


if __name__ == "__main__":
    log_to(sys.stderr)
    role, where, *rest = sys.argv[1:]
    print(json.dumps(ROLES[role](Path(where), *rest)))
