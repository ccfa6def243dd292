import pytest

from rootstock.common.errors import ConfigurationError
from rootstock.common.transport.channel import (
    CLIENT_OPTIONS,
    MAX_MESSAGE_BYTES,
    Address,
    parse_address,
    server_options,
)
from rootstock.common.weights.manifest import MAX_MANIFEST_BYTES


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:50051", Address("127.0.0.1", 50051)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
        ("coordinator.example.org:443", Address("coordinator.example.org", 443)),
    ],
)
def test_addresses_are_read_and_written(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":50051", "host:", "host:port", "host:65536", "host:-1", "::1:50051",
     "[host]:1", "[::1]", "http://host:80", "host/x:1", "a b:1", "host:1:2", "host:٣"],
)  # fmt: skip
def test_other_forms_are_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not host:port; write for example 127\.0"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "loopback", "unspecified"),
    [
        ("127.9.9.9:1", True, False),
        ("localhost:1", True, False),
        ("[::1]:1", True, False),
        ("0.0.0.0:1", False, True),
        ("[::]:1", False, True),
        ("10.0.0.1:1", False, False),
        ("localhost.example.org:1", False, False),
    ],
)
def test_an_address_says_who_can_reach_it(text: str, loopback: bool, unspecified: bool) -> None:
    address = parse_address(text)
    assert (address.loopback, address.unspecified) == (loopback, unspecified)


def test_both_sides_agree() -> None:
    client, server = dict(CLIENT_OPTIONS), dict(server_options())
    for options in (client, server):
        assert options["grpc.max_receive_message_length"] == MAX_MESSAGE_BYTES
    assert MAX_MESSAGE_BYTES > 2 * MAX_MANIFEST_BYTES
    # A server hangs up on clients that ping more often than it allows.
    allowed = server["grpc.http2.min_ping_interval_without_data_ms"]
    assert allowed < client["grpc.keepalive_time_ms"]
