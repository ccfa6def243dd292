"""The coordinator's signature on a question holds every field of it, and the site it is for."""

from __future__ import annotations

from typing import Any

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
        rest=pb.RestQuestion(
            category="dog", category_module=b"{}", architecture=b"{}", scale=1.0, bias=0.0
        ),
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


def change(message: Any, field: Any) -> None:
    """Change the value of one field, or leave a message's field out."""
    name = field.name
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        message.ClearField(name)
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(message, name, getattr(message, name) + "0")
    elif field.type == FieldDescriptor.TYPE_BYTES:
        setattr(message, name, getattr(message, name)[:-1] + b"\0")
    elif field.type == FieldDescriptor.TYPE_BOOL:
        setattr(message, name, False)
    else:
        setattr(message, name, getattr(message, name) + 1)


@pytest.mark.parametrize("field", [field.name for field in pb.EvaluationRequest.DESCRIPTOR.fields])
def test_no_field_can_be_changed(field: str) -> None:
    changed = question()
    change(changed, pb.EvaluationRequest.DESCRIPTOR.fields_by_name[field])
    with pytest.raises(IntegrityError):
        verify(changed)


@pytest.mark.parametrize("field", [field.name for field in pb.RestQuestion.DESCRIPTOR.fields])
def test_no_field_of_a_witness_s_question_can_be_changed(field: str) -> None:
    changed = question()
    change(changed.rest, pb.RestQuestion.DESCRIPTOR.fields_by_name[field])
    with pytest.raises(IntegrityError):
        verify(changed)


@pytest.mark.parametrize("field", [field.name for field in pb.Candidate.DESCRIPTOR.fields])
def test_no_field_of_a_candidate_can_be_changed(field: str) -> None:
    changed = question()
    change(changed.candidates[1], pb.Candidate.DESCRIPTOR.fields_by_name[field])
    with pytest.raises(IntegrityError):
        verify(changed)


def test_what_is_left_out_is_not_what_is_empty() -> None:
    """A candidate moved into another's adapter, an order turned around."""
    turned = question()
    turned.candidates.reverse()
    with pytest.raises(IntegrityError):
        verify(turned)
