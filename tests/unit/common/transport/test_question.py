"""The coordinator's signature on a question holds every field of it, and the site it is for."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor

from rootstock.common.errors import IntegrityError
from rootstock.common.identity.keys import SigningKey
from rootstock.coordinator.service.messages import sign_question
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.wire.messages import EvaluationAsked

KEY = SigningKey.generate()


def question() -> pb.EvaluationRequest:
    message = pb.EvaluationRequest(
        evaluation_id="evl-0001",
        merge_id="mrg-0001",
        manifest_digest="a" * 64,
        task="classification",
        architecture=b"{}",
        task_module=b"{}",
        candidates=[pb.Candidate(name="no_adapter"), pb.Candidate(name="few", adapter=b"{}")],
        refine=True,
        refinement_spec=b"{}",
    )
    sign_question(message, "cat-lab", 1_800_000_000, KEY)
    return message


def verify(message: pb.EvaluationRequest, site: str = "cat-lab", key: SigningKey = KEY) -> None:
    EvaluationAsked(message.evaluation_id, message).verify(site, key.public_key)


def test_its_lab_can_tell_who_asks() -> None:
    verify(question())
    kept = EvaluationAsked("evl-0001", question()).serialized()
    EvaluationAsked.parse(kept).verify("cat-lab", KEY.public_key)


def test_another_lab_s_another_coordinator_s_and_an_unsigned_one_are_not() -> None:
    for site, key in (("dog-lab", KEY), ("cat-lab", SigningKey.generate())):
        with pytest.raises(IntegrityError, match=f"not signed for site '{site}' by key"):
            verify(question(), site, key)
    unsigned = question()
    unsigned.ClearField("signature")
    with pytest.raises(IntegrityError, match="not signed"):
        verify(unsigned)


@pytest.mark.parametrize("field", [field.name for field in pb.EvaluationRequest.DESCRIPTOR.fields])
def test_no_field_can_be_changed(field: str) -> None:
    changed, descriptor = question(), pb.EvaluationRequest.DESCRIPTOR.fields_by_name[field]
    if field == "candidates":
        changed.candidates[1].adapter = b"[]"
    elif descriptor.type == FieldDescriptor.TYPE_STRING:
        setattr(changed, field, getattr(changed, field) + "0")
    elif descriptor.type == FieldDescriptor.TYPE_BYTES:
        setattr(changed, field, getattr(changed, field)[:-1] + b"\0")
    elif descriptor.type == FieldDescriptor.TYPE_BOOL:
        setattr(changed, field, False)
    else:
        setattr(changed, field, getattr(changed, field) + 1)
    with pytest.raises(IntegrityError):
        verify(changed)


def test_what_is_left_out_is_not_what_is_empty() -> None:
    """A candidate moved into another's adapter, an order turned around."""
    turned = question()
    turned.candidates.reverse()
    with pytest.raises(IntegrityError):
        verify(turned)
