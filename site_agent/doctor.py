"""Looks at everything that an agent needs before it runs, and says what would stop it.

Each check looks at one thing and changes nothing but a file that it deletes again. The coordinator
is asked for its plan, as the agent asks first of all.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

from rootstock.common.documents import Document
from rootstock.common.errors import RefusedError, RootstockError
from rootstock.common.transport.channel import parse_address
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.identity import identity_of, site_credentials

CONNECT_SECONDS = 5.0
LITTLE_DISK, LITTLE_MEMORY = 2 << 30, 2 << 30
"""Bytes below which a check doubts."""
FEW_DAYS = 14


class Verdict(StrEnum):
    """What a check came to."""

    WELL = "well"
    DOUBTFUL = "doubtful"
    STOPS = "stops"
    """An agent that is started now would end, or wait."""


class Check(Document):
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    found: str
    """What is there; what is wrong, and how to mend it."""


def examine(config: SiteConfig) -> Iterator[Check]:
    """Yield a check of everything that the agent needs, one after the other."""
    looks: dict[str, Callable[[SiteConfig], Check]] = {
        "state folder": _state,
        "memory": _memory,
        "device": _device,
        "images": _images,
        "certificate": _certificate,
        "proxy": _proxy,
        "address": _address,
        "coordinator": _coordinator,
    }
    stopped: set[str] = set()
    for name, look in looks.items():
        if name == "coordinator" and stopped & {"certificate", "address"}:
            told = "not asked: what is above is in the way"
            yield Check(name=name, verdict=Verdict.STOPS, found=told)
            continue
        try:
            yield look(config).model_copy(update={"name": name})
        except (RootstockError, OSError, ImportError, ValueError) as error:
            stopped.add(name)
            yield Check(name=name, verdict=Verdict.STOPS, found=str(error))


def _well(found: str) -> Check:
    return Check(name="", verdict=Verdict.WELL, found=found)


def _doubtful(found: str) -> Check:
    return Check(name="", verdict=Verdict.DOUBTFUL, found=found)


def _state(config: SiteConfig) -> Check:
    state = config.state
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"0" * 4096)
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(
            f"{there}: cannot be written ({error.strerror}); give this user the right to it, or "
            "name another folder with `state`"
        ) from error
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    told = f"{state}, {_size(free)} free"
    if disk.f_files and disk.f_favail < 1000:
        return _doubtful(f"{told}, but {disk.f_favail} inodes are left; delete small files there")
    if free < LITTLE_DISK:
        return _doubtful(
            f"{told}: checkpoints, the spool and the log want {_size(LITTLE_DISK)}; make room, or "
            "name another folder with `state`"
        )
    return _well(told)


def _memory(config: SiteConfig) -> Check:  # noqa: ARG001
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = dict(line.split(":", 1) for line in lines)
    if "MemAvailable" not in named:
        return _well("not known on this system")
    available = 1024 * int(named["MemAvailable"].split()[0])
    told = f"{_size(available)} available"
    if available < LITTLE_MEMORY:
        return _doubtful(f"{told}: training wants {_size(LITTLE_MEMORY)}; end other programs")
    return _well(told)


def _device(config: SiteConfig) -> Check:
    import torch
    import torchvision  # type: ignore[import-untyped, unused-ignore]

    from rootstock.site_agent.lab import set_up_torch

    device = set_up_torch(config)
    pair = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if device.type == "cuda":
        return _well(f"{torch.cuda.get_device_name(device)}, {pair}")
    more = torch.cuda.device_count()
    unused = f"; {more} CUDA devices are not used (device = 'cuda')" if more else ""
    return _well(f"CPU, {torch.get_num_threads()} threads, {pair}{unused}")


def _images(config: SiteConfig) -> Check:
    from rootstock.site_agent.data.class_names import find_class
    from rootstock.site_agent.data.datasets import open_dataset

    data = config.data
    name = find_class(data.class_name or config.category, open_dataset(data).classes, "class_name")
    place = data.path or f"the bundled {data.kind}"
    return _well(f"class '{name}' of {place}; `rootstock site check` reads them all")


def _certificate(config: SiteConfig) -> Check:
    identity = identity_of(site_credentials(config))
    now = datetime.now(UTC)
    identity.require_valid(now)
    days = (identity.not_after - now).days
    told = f"{identity.name} of {identity.net}, for {days} days more"
    if days < FEW_DAYS:
        return _doubtful(f"{told}: an agent that runs renews it at half of its life; start it")
    return _well(told)


def _proxy(config: SiteConfig) -> Check:
    address = parse_address(config.coordinator)
    if address.loopback:
        return _well("none on the way to this machine")
    proxy = _proxy_to(address.host)
    if proxy is None:
        return _well("none")
    return _doubtful(
        f"calls go through {proxy}, which has to let CONNECT through to {config.coordinator}; "
        f"add {address.host} to no_proxy if it is reached without"
    )


def _proxy_to(host: str) -> str | None:
    """Return the proxy that calls to a host go through, as gRPC reads the environment."""
    found = getproxies()
    proxy = next((found[kind] for kind in ("grpc", "https", "http") if found.get(kind)), None)
    if proxy is None or proxy_bypass(host):
        return None
    return proxy.rpartition("@")[2]  # a password may stand before it


def _address(config: SiteConfig) -> Check:
    address = parse_address(config.coordinator)
    if not address.loopback and _proxy_to(address.host) is not None:
        return _well(f"{config.coordinator}, which the proxy looks up and calls")
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(
            f"{address.host}: has no address ({error.strerror}); check `coordinator` in site.toml, "
            "and this machine's name server"
        ) from error
    where = found[0][4][0]
    try:
        socket.create_connection((address.host, address.port), CONNECT_SECONDS).close()
    except OSError as error:
        raise OSError(
            f"{config.coordinator} ({where}): does not answer ({error.strerror or error}); check "
            "that the coordinator runs there, and that firewalls let this machine out to that port"
        ) from error
    return _well(f"{config.coordinator} ({where}) answers")


def _coordinator(config: SiteConfig) -> Check:
    from rootstock.site_agent.wire.client import CoordinatorClient

    client = CoordinatorClient(config, None, lambda *_: None)
    try:
        published = client.plan()
    finally:
        client.close()
    plan = published.plan
    tasks = ", ".join(task.name for task in plan.tasks)
    told = f"serves: {plan.architecture.name} split at {plan.architecture.split}, {tasks}"
    if published.refusal:
        refusal = f"no room for a teacher net that is trained now: {published.refusal}"
        if any((config.state / "spool" / "acknowledged").glob("*")):
            return _doubtful(f"{told}; {refusal}; the agent goes on with what it has shipped")
        raise RefusedError(refusal)
    return _well(told)


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
