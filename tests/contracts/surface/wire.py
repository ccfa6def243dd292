"""The wire: every field with its number, every call, and messages with every field set."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message

from rootstock.protos.rootstock.federation.v1 import federation_pb2
from rootstock.protos.rootstock.join.v1 import join_pb2
from rootstock.protos.rootstock.operator.v1 import operator_pb2
from tests.contracts.promises import RECORDED

NAME = "wire"
SAMPLES = RECORDED / "wire_samples.json"
FILES: tuple[FileDescriptor, ...] = (
    federation_pb2.DESCRIPTOR,
    join_pb2.DESCRIPTOR,
    operator_pb2.DESCRIPTOR,
)
TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in FieldDescriptor.__dict__.items()
    if name.startswith("TYPE_")
}

Samples = dict[str, list[dict[str, Any]]]
"""By message: bytes in hex, and the text that they are."""


def present() -> Iterator[str]:
    """Yield every field of every message with its number, and every call."""
    for message in messages():
        yield message.full_name
        for field in message.fields:
            yield f"{message.full_name} {field.number} {field.name}: {_kind(field)}"
    for file in FILES:
        for service in file.services_by_name.values():
            for method in service.methods:
                sides = (
                    (method.client_streaming, method.input_type),
                    (method.server_streaming, method.output_type),
                )
                both = (f"{'stream ' * streams}{kind.full_name}" for streams, kind in sides)
                yield f"/{service.full_name}/{method.name}: {' → '.join(both)}"


def recorded_samples() -> Samples:
    """Return what was recorded of messages with every field set."""
    found: Samples = json.loads(SAMPLES.read_text("utf-8")) if SAMPLES.exists() else {}
    return found


def samples(promised: Samples) -> Samples:
    """Add a sample of each message that has a field that is in none; those there are stay."""
    kept = {name: list(found) for name, found in promised.items()}
    for message in messages():
        found = kept.setdefault(message.full_name, [])
        fields = [field.name for field in message.fields]
        for name in fields or [""]:
            if any(not fields or name in each["text"] for each in found):
                continue
            whole = _whole(message, itertools.count(1), name)
            found.append(
                {
                    "bytes": whole.SerializeToString(deterministic=True).hex(),
                    "text": json_format.MessageToDict(whole, preserving_proto_field_name=True),
                }
            )
    return kept


def messages() -> Iterator[Descriptor]:
    """Yield every message of both packages."""
    for file in FILES:
        yield from file.message_types_by_name.values()


def _kind(field: FieldDescriptor) -> str:
    if (entry := map_entry(field)) is not None:
        return "map of " + " to ".join(_kind(each) for each in entry.fields)
    kind = TYPES[field.type] if field.message_type is None else field.message_type.full_name
    return f"repeated {kind}" if field.is_repeated else kind


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    """Return the message of key and value that a map consists of; None of any other field."""
    kind = field.message_type
    return kind if kind is not None and kind.GetOptions().map_entry else None


def _whole(descriptor: Descriptor, numbers: Iterator[int], wanted: str = "") -> Message:
    """Return a message with every field set, each to another value; of a oneof the wanted one."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.containing_oneof is not None:
            rivals = [each.name for each in field.containing_oneof.fields]
            if field.name != (wanted if wanted in rivals else rivals[0]):
                continue
        target: Any = getattr(message, field.name)
        if (entry := map_entry(field)) is not None:
            value = entry.fields_by_name["value"]
            if value.message_type is None:
                target["a"], target["b"] = _value(value, numbers), _value(value, numbers)
            else:
                target["a"].CopyFrom(_whole(value.message_type, numbers))
        elif field.message_type is not None and field.is_repeated:
            target.extend([_whole(field.message_type, numbers) for _ in range(2)])
        elif field.message_type is not None:
            target.SetInParent()
            target.CopyFrom(_whole(field.message_type, numbers))
        elif field.is_repeated:
            target.extend([_value(field, numbers), _value(field, numbers)])
        else:
            setattr(message, field.name, _value(field, numbers))
    return message


def _value(field: FieldDescriptor, numbers: Iterator[int]) -> Any:
    number = next(numbers)
    match TYPES[field.type]:
        case "string":
            return f"{field.name} {number} ✓"
        case "bytes":
            return bytes([number % 256, 0, 255])
        case "bool":
            return True
        case "double" | "float":
            return number + 0.25
        case _:
            return number + (1 << 28)


def reserved(descriptor: Descriptor) -> tuple[list[str], list[int]]:
    """Return the names and the numbers that a message has reserved."""
    proto = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(proto)
    numbers = [number for each in proto.reserved_range for number in range(each.start, each.end)]
    return list(proto.reserved_name), numbers
