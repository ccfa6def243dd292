from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from rootstock.common.errors import IdentityError, UnreachableError
from rootstock.common.identity.keys import SigningKey
from rootstock.common.transport.auth import (
    MAX_SKEW_SECONDS,
    NONCE_KEY,
    SIGNATURE_KEY,
    SITE_KEY,
    TIME_KEY,
    NonceMemory,
    SigningInterceptor,
    sign_call,
    verify_call,
)
from rootstock.common.transport.channel import open_channel
from rootstock.protos.rootstock.federation.v1.federation_pb2 import JoinRequest
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from tests.support.transport_server import Server

METHOD = "/rootstock.federation.v1.Federation/GetPlan"
NOW = 1_800_000_000.0
KEY = SigningKey.generate()
KEYS = {"cat-lab": KEY.public_key}

Metadata = dict[str, str | bytes]


def signed(site: str = "cat-lab", key: SigningKey = KEY, now: float = NOW) -> Metadata:
    return dict(sign_call(site, key, METHOD, now))


def check(metadata: Metadata, seen: NonceMemory, method: str = METHOD, now: float = NOW) -> str:
    return verify_call(metadata.items(), method, KEYS.get, now, seen)


def test_a_signed_call_is_its_sites() -> None:
    assert check({"user-agent": "x", **signed()}, NonceMemory()) == "cat-lab"


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (lambda m: m.pop(SITE_KEY), "the call has no rootstock-site"),
        (lambda m: m.pop(TIME_KEY), "the call has no rootstock-time"),
        (lambda m: m.pop(NONCE_KEY), "the call has no rootstock-nonce"),
        (lambda m: m.pop(SIGNATURE_KEY), "the call has no rootstock-signature-bin"),
        (lambda m: m.update({SITE_KEY: "dog-lab"}), "'dog-lab' is not known here; join first"),
        (lambda m: m.update({SITE_KEY: "cat-lab\nx"}), "does not fit"),
        (lambda m: m.update({TIME_KEY: "1e9"}), "does not fit"),
        (lambda m: m.update({TIME_KEY: "nan"}), "does not fit"),
        (lambda m: m.update({TIME_KEY: f"{NOW + 1:.3f}"}), "signature of site 'cat-lab' is not"),
        (lambda m: m.update({NONCE_KEY: "0" * 32}), "signature of site 'cat-lab' is not"),
        (lambda m: m.update({NONCE_KEY: "0" * 99}), "does not fit"),
        (lambda m: m.update({SIGNATURE_KEY: bytes(64)}), "signature of site 'cat-lab' is not"),
        (lambda m: m.update({SIGNATURE_KEY: "text"}), "has no rootstock-signature-bin"),
    ],
)
def test_a_call_that_is_not_what_was_signed_is_refused(
    spoil: Callable[[Metadata], object], rule: str
) -> None:
    metadata = signed()
    seen = NonceMemory()
    changed = dict(metadata)
    spoil(changed)
    with pytest.raises(IdentityError, match=rule):
        check(changed, seen)
    assert check(metadata, seen) == "cat-lab"


def test_another_key_cannot_call_in_a_sites_name() -> None:
    with pytest.raises(IdentityError, match="a name belongs to the key that joined with it"):
        check(signed(key=SigningKey.generate()), NonceMemory())


def test_a_signature_is_for_one_method() -> None:
    metadata = signed()
    with pytest.raises(IdentityError, match="signature"):
        check(metadata, NonceMemory(), method=METHOD.replace("GetPlan", "Upload"))


def test_a_call_cannot_be_replayed() -> None:
    metadata, seen = signed(), NonceMemory()
    check(metadata, seen)
    with pytest.raises(IdentityError, match="was used before"):
        check(metadata, seen, now=NOW + MAX_SKEW_SECONDS)
    with pytest.raises(IdentityError, match="clock"):
        check(metadata, seen, now=NOW + MAX_SKEW_SECONDS + 1)


@pytest.mark.parametrize("skew", [-MAX_SKEW_SECONDS, 0, MAX_SKEW_SECONDS])
def test_clocks_may_be_a_little_off(skew: float) -> None:
    assert check(signed(now=NOW + skew), NonceMemory()) == "cat-lab"
    over = skew + (1 if skew > 0 else -1) * (MAX_SKEW_SECONDS + 1 if skew == 0 else 1)
    with pytest.raises(IdentityError, match=r"its clock is [+-]301 s off, 300 s are allowed"):
        check(signed(now=NOW + over), NonceMemory())


def test_nonces_are_forgotten_when_their_time_is_over_and_never_before() -> None:
    seen = NonceMemory(share=3)
    assert [seen.first("a", n, NOW) for n in ("1", "2", "1", "3")] == [True, True, False, True]
    with pytest.raises(UnreachableError, match=r"'a' has made 3 calls in 600 s.*call again later"):
        seen.first("a", "4", NOW + 2 * MAX_SKEW_SECONDS)
    later = NOW + 2 * MAX_SKEW_SECONDS + 1
    assert seen.first("a", "4", later)
    assert seen.first("b", "4", later)


def test_a_site_that_calls_too_often_shuts_out_itself_alone() -> None:
    seen = NonceMemory(capacity=5, share=4, reserve=2)
    assert all(seen.first("loud", str(n), NOW) for n in range(4))
    with pytest.raises(UnreachableError, match="4 are accepted of one site"):
        seen.first("loud", "4", NOW)
    # The capacity is used up by the first of these; the reserve is there for everyone.
    for site in ("a", "b"):
        assert all(seen.first(site, str(n), NOW) for n in range(2))
        with pytest.raises(UnreachableError, match="5 of all together and 2 in any case"):
            seen.first(site, "2", NOW)
        assert not seen.first(site, "1", NOW)


def test_the_interceptor_signs_calls_of_a_real_channel(wire: tuple[Server, FederationStub]) -> None:
    server, plain = wire
    channel = open_channel(server.address, [SigningInterceptor("cat-lab", KEY, lambda: NOW)])
    seen = NonceMemory()
    method = "/rootstock.federation.v1.Federation/Join"
    for _ in range(2):
        FederationStub(channel).Join(JoinRequest(site="x"), timeout=10, metadata=(("extra", "1"),))
        assert server.metadata["extra"] == "1"
        assert verify_call(server.metadata.items(), method, KEYS.get, NOW, seen) == "cat-lab"
    channel.close()
    plain.Join(JoinRequest(site="x"), timeout=10)
    with pytest.raises(IdentityError, match="has no rootstock-site"):
        verify_call(server.metadata.items(), method, KEYS.get, NOW, seen)


class Recorder(grpc.GenericRpcHandler):
    """Answers any method with what `handler` makes of it, and notes the metadata."""

    def __init__(self) -> None:
        self.seen: dict[str, Metadata] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        self.seen[details.method] = dict(details.invocation_metadata)
        one, many = (lambda _, __: b""), (lambda _, __: iter([b""]))
        return {
            "/x/A": grpc.unary_unary_rpc_method_handler(one),
            "/x/B": grpc.unary_stream_rpc_method_handler(many),
            "/x/C": grpc.stream_unary_rpc_method_handler(one),
            "/x/D": grpc.stream_stream_rpc_method_handler(many),
        }[details.method]


def test_the_interceptor_signs_every_kind_of_call() -> None:
    recorder = Recorder()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[recorder])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel: Any = open_channel(f"127.0.0.1:{port}", [SigningInterceptor("cat-lab", KEY)])
    channel.unary_unary("/x/A")(b"", timeout=10)
    list(channel.unary_stream("/x/B")(b"", timeout=10))
    channel.stream_unary("/x/C")(iter([b""]), timeout=10)
    list(channel.stream_stream("/x/D")(iter([b""]), timeout=10))
    channel.close()
    server.stop(None).wait()
    assert sorted(recorder.seen) == ["/x/A", "/x/B", "/x/C", "/x/D"]
    seen = NonceMemory()
    for method, metadata in recorder.seen.items():
        assert verify_call(metadata.items(), method, KEYS.get, time.time(), seen) == "cat-lab"
