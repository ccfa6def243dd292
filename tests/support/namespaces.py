"""Network namespaces: labs on networks of their own, each with a cable to this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


class Namespace:
    """A network with one machine besides this one, which has `here` as its address there."""

    def __init__(self, number: int) -> None:
        # Of this process: tests may run at the same time.
        self.name = f"rs{os.getpid()}-{number}"
        net = f"10.{200 + os.getpid() % 50}.{number}"
        self.here, self.there = f"{net}.1", f"{net}.2"

    def command(self, *words: str) -> list[str]:
        """Return a command line that runs in the namespace."""
        return ["ip", "netns", "exec", self.name, *words]

    def make(self) -> None:
        cable, end = f"{self.name}h", f"{self.name}l"
        run("netns", "add", self.name)
        run("link", "add", cable, "type", "veth", "peer", "name", end, "netns", self.name)
        run("addr", "add", f"{self.here}/24", "dev", cable)
        run("link", "set", cable, "up")
        for words in (["addr", "add", f"{self.there}/24", "dev", end], ["link", "set", end, "up"]):
            run("-n", self.name, *words)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


def run(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def reason_against() -> str:
    """Return why no namespace can be made here, or nothing."""
    if shutil.which("ip") is None:
        return "there is no `ip` here"
    probe = Namespace(0)
    try:
        probe.make()
    except subprocess.CalledProcessError as error:
        return str(error.stderr.decode().strip())
    finally:
        probe.remove()
    return ""


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    made = [Namespace(number + 1) for number in range(count)]
    try:
        for each in made:
            each.make()
        yield made
    finally:
        for each in made:
            each.remove()
