"""The wire: fields keep their numbers, and the bytes of every release are still read."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor

from rootstock.common.protocol import join_bytes, receipt_bytes
from tests.contracts.promises import REMEDY, recorded, require_promise
from tests.contracts.surface.wire import (
    NAME,
    map_entry,
    messages,
    present,
    recorded_samples,
    reserved,
    samples,
)


def test_fields_and_calls_are_as_recorded() -> None:
    """A field that is removed leaves its number and its name reserved."""
    kept = tuple(
        f"{message.full_name} {number} {name}: "
        for message in messages()
        for name, number in itertools.product(*reserved(message))
    )
    removed = {line for line in recorded(NAME) if line.startswith(kept)}
    require_promise(NAME, {*present(), *removed})


@pytest.mark.parametrize("message", list(messages()), ids=lambda message: message.full_name)
def test_recorded_bytes_are_read_as_they_were(message: Descriptor) -> None:
    promised = recorded_samples()
    assert message.full_name in promised, REMEDY
    factory = message_factory.GetMessageClass(message)
    for sample in promised[message.full_name]:
        read = factory.FromString(bytes.fromhex(sample["bytes"]))
        text = json_format.MessageToDict(read, preserving_proto_field_name=True)
        assert text == _without_reserved(message, sample["text"])
        if text == sample["text"]:  # and what says the same is sent in the same bytes
            written = json_format.ParseDict(text, factory())
            assert written.SerializeToString(deterministic=True).hex() == sample["bytes"]
    assert samples(promised)[message.full_name] == promised[message.full_name], REMEDY


def _without_reserved(descriptor: Descriptor, text: dict[str, Any]) -> dict[str, Any]:
    names, _ = reserved(descriptor)
    kept = {name: value for name, value in text.items() if name not in names}
    for field in descriptor.fields:
        if field.name in kept and field.message_type is not None and map_entry(field) is None:
            inner, value = field.message_type, kept[field.name]
            kept[field.name] = (
                [_without_reserved(inner, each) for each in value]
                if field.is_repeated
                else _without_reserved(inner, value)
            )
    return kept


def test_what_one_who_joins_signs() -> None:
    assert join_bytes("0123456789ab", b"request") == (
        b"rootstock-join-v1\n0123456789ab\n%s" % hashlib.sha256(b"request").hexdigest().encode()
    )


def test_what_a_receipt_signs() -> None:
    assert (
        receipt_bytes("a" * 64, "sub-0001", "2026-01-02T03:04:05.678+00:00")
        == f"{'a' * 64} sub-0001 2026-01-02T03:04:05.678+00:00".encode()
    )
