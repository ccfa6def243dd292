"""kill -9 of anything, anywhere, loses nothing that was promised."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rootstock.deploy.federation.config import FederationConfig, merge
from rootstock.protos.rootstock.operator.v1.operator_pb2 import GetStatusResponse
from tests.support.federation_processes import QUICK, Running, digits_federation, merge_of, merged
from tests.support.line import line_to

pytestmark = pytest.mark.e2e

Federation = Callable[[FederationConfig], Running]


def test_an_agent_killed_in_the_middle_of_an_upload_resumes_where_it_was(
    federation: Federation,
) -> None:
    config = digits_federation()
    # A module of 34 MB over a line of 8 MB a second: the upload takes seconds, not milliseconds.
    wide = {"plan": {"architecture": {"settings": {"width": 32, "hidden": 4096}}}}
    config = config.model_copy(
        update={
            "coordinator": merge(config.coordinator, wide),
            "site": merge(config.site, {"training": {"epochs": 1}}),
        }
    )
    running = federation(config)
    running.start_coordinator()
    running.until("the coordinator", lambda _: True)
    with line_to(running.port, 8e6) as line:
        running.start_site("lab-zero", address=line.address)
        answer = running.until(
            "a third of the upload",
            lambda answer: any(
                3 * s.bytes_received > s.bytes_total > 0 for s in answer.submissions
            ),
            pause=0.02,
        )
        running.kill("lab-zero")
        (cut,) = answer.submissions
        assert cut.state == "receiving"
        assert cut.bytes_received < cut.bytes_total

    with line_to(running.port, 1e9) as line:
        running.start_site("lab-zero", address=line.address)
        answer = running.until("the founding", merged("zero"))
        (done,) = answer.submissions
        assert (done.submission_id, done.bytes_received) == (cut.submission_id, cut.bytes_total)
        # What was durable when the agent died is not sent again (calls and chunk headers are).
        assert line.sent < cut.bytes_total - cut.bytes_received + (1 << 20)
    assert answer.net_version == 1


def test_a_coordinator_killed_in_the_middle_of_a_merge_completes_it(
    federation: Federation,
) -> None:
    steps = {"distillation": {**QUICK, "steps": 3000}, "jobs": {"checkpoint_steps": 100}}
    running = federation(digits_federation(**steps))
    running.start_coordinator()
    running.start_site("lab-zero")
    running.until("the founding", merged("zero"))
    running.start_site("lab-one")

    def distils(answer: GetStatusResponse) -> bool:
        found = merge_of(answer, "one")
        return found is not None and found.state == "distilling" and found.step >= 200

    before = merge_of(running.until("some steps of the merge", distils), "one")
    running.kill("coordinator")
    assert before is not None

    running.start_coordinator()
    answer = running.until("the coordinator", lambda _: True)
    found = merge_of(answer, "one")
    assert found is not None
    # Carried on from a checkpoint, not begun again.
    assert found.merge_id == before.merge_id
    assert (found.state, found.step >= 100) == ("distilling", True)

    answer = running.until("the merge", merged("one"))
    assert [merge.net_version for merge in answer.merges] == [1, 2]
    assert answer.net_version == 2
    ended = merge_of(answer, "one")
    assert ended is not None
    assert {"teacher_error", "no_adapter_error", "zero_sample_error", "few_sample_error"} <= set(
        ended.numbers
    )
