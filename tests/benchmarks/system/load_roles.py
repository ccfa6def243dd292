"""The processes of ``bench load``; each answers a line of JSON for a line that it reads."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.identity.credentials import Credentials, read_credentials
from rootstock.common.identity.keys import SigningKey, key_id, load, load_or_create
from rootstock.common.logs import log_to
from rootstock.common.protocol import PROTOCOL_MAXIMUM, PROTOCOL_MINIMUM
from rootstock.common.provenance.statements import sign_manifest
from rootstock.common.transport.channel import channel_options, parse_address
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.config import CoordinatorConfig, PlanConfig, ServerConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.identity.members import open_members
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import Registry
from rootstock.coordinator.registry.documents import HeadsChanged
from rootstock.coordinator.service.server import CoordinatorServer
from rootstock.deploy.federation.enrol import enrol_site
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from rootstock.site_agent.config import DataConfig, SiteConfig
from rootstock.site_agent.identity import IdentityFiles, coordinator_key
from rootstock.site_agent.spool.spool import Spool
from rootstock.site_agent.wire.client import CoordinatorClient
from rootstock.site_agent.wire.upload import Shipment
from tests.benchmarks.harness.memory import PeakMemory, status_of
from tests.benchmarks.system import transport_roles

CALLS = 400
CALLS_PER_SECOND = 40.0
"""Between all labs: what is measured is one call's time, not how many there can be."""

STREAMS_OF_A_SLOW_LAB = 2
SLOW_SECONDS = 5.0
"""Between two bytes of a slow lab: far below what counts as slow."""


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def lab_folder(folder: Path, number: int) -> Path:
    return folder / "labs" / f"lab-{number:04d}"


def prepare(folder: Path, payload_bytes: int, labs: int) -> None:
    """Make a net with so many members, and a module of so many bytes for those that upload."""
    made = transport_roles.prepare(folder, payload_bytes)
    config = _config(folder)
    key = load_or_create(StatePaths(config).key)
    Registry(f"sqlite:///{config.state / 'registry.sqlite'}").close()
    with open_members(config) as members:
        for number in range(labs):
            enrol_site(members, f"lab-{number:04d}", lab_folder(folder, number), key.public_key)
    say(made)


def serve(folder: Path) -> None:
    """Be the coordinator's server."""
    config = _config(folder)
    registry = Registry(f"sqlite:///{config.state / 'registry.sqlite'}")
    shutil.rmtree(config.state / "artifacts", ignore_errors=True)
    context = CoordinatorContext(
        registry=registry,
        store=LocalStore(config.state / "artifacts"),
        plan=transport_roles.plan_of(folder),
        key=load_or_create(StatePaths(config).key),
        config=config,
    )

    async def run() -> None:
        server = CoordinatorServer(context, Committer(context), HistoryState)
        say(str(await server.start()))
        memory = PeakMemory()
        while words := (await asyncio.to_thread(sys.stdin.readline)).strip():
            match words:
                case "event":
                    news = HeadsChanged(number=0, origin="bench")
                    begun = time.monotonic()
                    await asyncio.to_thread(registry.events.append, news.to(None))
                    say({"begun": begun})
                case "begin":
                    memory = PeakMemory()
                    say({})
                case "resident":
                    say({"resident_mib": round(status_of("VmRSS") / (1 << 20), 1)})
                case _:
                    say(
                        {
                            "memory_growth_mib": round(memory.growth() / (1 << 20), 1),
                            "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
                        }
                    )

    asyncio.run(run())


def labs(folder: Path, address: str, count: int) -> None:
    """Be so many labs that watch, and call now and then."""
    asyncio.run(_labs(folder, address, count))


async def _labs(folder: Path, address: str, count: int) -> None:
    watching = [await _Lab.open(folder, address, number) for number in range(count)]
    await asyncio.gather(*(lab.caught_up.wait() for lab in watching))
    say({"labs": count})
    while words := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if words == "calls":
            say(await _calls(watching))
        else:
            for lab in watching:
                lab.told_at = 0.0
            say({})  # listens
            while not all(lab.told_at for lab in watching):
                await asyncio.sleep(0.001)
            say({"last": max(lab.told_at for lab in watching)})  # one clock for all processes


async def _calls(watching: list[_Lab]) -> dict[str, float]:
    """Return the times of calls made one after the other at a steady pace, by all labs in turn."""
    times = []
    begun = time.monotonic()
    for number in range(CALLS):
        await asyncio.sleep(max(0.0, begun + number / CALLS_PER_SECOND - time.monotonic()))
        started = time.perf_counter()
        await watching[number % len(watching)].call()
        times.append(1000 * (time.perf_counter() - started))
    times.sort()
    return {
        "call_p50_ms": round(times[CALLS // 2], 1),
        "call_p99_ms": round(times[CALLS * 99 // 100], 1),
    }


class _Lab:
    """One lab's connection: watches, and asks for the plan."""

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self._stub: Any = FederationStub(channel)
        self._name = name
        self.caught_up = asyncio.Event()
        self.told_at = 0.0
        self._task = asyncio.create_task(self._watch())

    @classmethod
    async def open(cls, folder: Path, address: str, number: int) -> _Lab:
        own = read_credentials(IdentityFiles(lab_folder(folder, number)).credentials)
        return cls(_channel(address, own), f"{number}")

    async def call(self) -> None:
        versions = pb.VersionRange(minimum=PROTOCOL_MINIMUM, maximum=PROTOCOL_MAXIMUM)
        await self._stub.GetPlan(pb.GetPlanRequest(protocol=versions, agent_version="bench"))

    async def _watch(self) -> None:
        async for message in self._stub.Watch(pb.WatchRequest(instance=self._name)):
            if message.WhichOneof("event") == "heartbeat":
                self.caught_up.set()
            else:
                self.told_at = time.monotonic()


def _channel(address: str, own: Credentials) -> grpc.aio.Channel:
    proof = grpc.ssl_channel_credentials(own.authority_pem, own.key_pem, own.chain_pem)
    options = [*channel_options(parse_address(address), own.net)]
    return grpc.aio.secure_channel(address, proof, options)


def upload(folder: Path, address: str, count: int, first: int = 0) -> None:
    """Be so many labs that upload the same large teacher net at once."""
    say({"begun": count})
    numbers = range(first, first + count)
    with ThreadPoolExecutor(count) as pool:
        begun = time.monotonic()
        sizes = list(pool.map(lambda n: _upload_one(folder, address, n), numbers))
        seconds = time.monotonic() - begun
    say(
        {
            "upload_seconds": round(seconds, 1),
            "upload_mib_per_second": round(sum(sizes) / seconds / (1 << 20), 1),
        }
    )


def _upload_one(folder: Path, address: str, number: int) -> int:
    state = lab_folder(folder, number)
    shutil.rmtree(state / "spool", ignore_errors=True)
    config = SiteConfig(
        site=state.name,
        coordinator=address,
        state=state,
        category=f"category-{number}",
        data=DataConfig(kind="digits"),
    )
    client = CoordinatorClient(config, threading.Event(), lambda *_: None)
    client.plan()
    known = coordinator_key(config)
    spool = Spool(state / "spool", lambda _: None, known)
    manifest, blobs = _teacher(folder, state.name, config.category)
    with spool.staging() as staging:
        for blob in manifest.blobs():
            (staging / blob.digest).hardlink_to(blobs / blob.digest)
        entry = spool.commit(staging, manifest, "bench")
    signature = sign_manifest(_signing_key(state), entry.manifest_bytes, key_id(known))
    Shipment(client, entry, signature).send()
    client.close()
    return entry.size


def _teacher(folder: Path, site: str, category: str) -> tuple[TeacherManifest, Path]:
    """Return the large teacher as one of a site's, and the folder of its blobs."""
    (source,) = (folder / "site" / "spool" / "entries").iterdir()
    manifest = TeacherManifest.parse((source / "manifest.json").read_bytes(), what="manifest")
    return manifest.model_copy(update={"site": site, "category": category}), source / "blobs"


def _signing_key(state: Path) -> SigningKey:
    return load(IdentityFiles(state).signing_key)


def slow(folder: Path, address: str, count: int, first: int) -> None:
    """Be labs that hold upload streams with a byte now and then, and begin again once cut off."""
    asyncio.run(_slow(folder, address, range(first, first + count)))


async def _slow(folder: Path, address: str, numbers: range) -> None:
    known = load_or_create(StatePaths(_config(folder)).key).public_key
    holding = [
        asyncio.create_task(_hold(folder, address, number, stream, key_id(known)))
        for number in numbers
        for stream in range(STREAMS_OF_A_SLOW_LAB)
    ]
    await asyncio.sleep(SLOW_SECONDS)
    say({"slow": len(holding)})
    await asyncio.gather(*holding)


async def _hold(folder: Path, address: str, number: int, stream: int, net: str) -> None:
    state = lab_folder(folder, number)
    manifest, blobs = _teacher(folder, state.name, f"slow-{number}-{stream}")
    document = manifest.canonical()
    own = read_credentials(IdentityFiles(state).credentials)
    stub: Any = FederationStub(_channel(address, own))
    while True:
        try:
            opened = await stub.BeginUpload(
                pb.BeginUploadRequest(
                    manifest=document, signature=sign_manifest(_signing_key(state), document, net)
                )
            )
            blob = opened.missing[0]
            begin = blob.durable_offset
            call = stub.Upload()
            for offset in range(begin, blob.size):
                with (blobs / blob.digest).open("rb") as file:
                    file.seek(offset)
                    byte = file.read(1)
                await call.write(
                    pb.UploadRequest(
                        upload_id=opened.upload_id if offset == begin else "",
                        digest=blob.digest if offset == begin else "",
                        offset=offset,
                        data=byte,
                        crc32=zlib.crc32(byte),
                    )
                )
                await asyncio.sleep(SLOW_SECONDS)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # ended by the server
            await asyncio.sleep(1.0)


def _config(folder: Path) -> CoordinatorConfig:
    plan = transport_roles.plan_of(folder)
    state = folder / "coordinator"
    state.mkdir(exist_ok=True)
    return CoordinatorConfig(
        net=plan.net,
        state=state,
        server=ServerConfig(listen="127.0.0.1:0"),
        plan=PlanConfig(architecture=plan.architecture),
    )


ROLES: dict[str, Callable[..., None]] = {
    "prepare": lambda folder, *sizes: prepare(folder, *map(int, sizes)),
    "serve": serve,
    "labs": lambda folder, address, count: labs(folder, address, int(count)),
    "slow": lambda folder, address, *numbers: slow(folder, address, *map(int, numbers)),
    "upload": lambda folder, address, *numbers: upload(folder, address, *map(int, numbers)),
}


if __name__ == "__main__":
    role, where, *rest = sys.argv[1:]
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        log_to(nowhere)
        ROLES[role](Path(where), *rest)
