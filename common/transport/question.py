"""What a coordinator's signature on a question to a lab is over."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from rootstock.common.documents import canonical_json
from rootstock.protos.rootstock.federation.v1.federation_pb2 import EvaluationRequest

_PREFIX = b"rootstock-question-v1\n"
"""Tells it from whatever else the coordinator's key signs: receipts, net versions."""


def question_bytes(question: EvaluationRequest, site: str) -> bytes:
    """Return what the coordinator signs of a question that it asks of a site.

    All fields that are set but the signature itself: none can be added that is not signed.
    """
    return _PREFIX + canonical_json([site, _fields(question, but="signature")])


def _fields(message: Message, but: str = "") -> list[Any]:
    return [
        [field.number, _value(value)] for field, value in message.ListFields() if field.name != but
    ]


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Message):
        return _fields(value)
    if isinstance(value, (str, int, float)):
        return value
    return [_value(each) for each in value]  # a repeated field
