"""Questions that a lab answers, and those that it refuses before it fetches anything."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from rootstock.common.errors import LimitError, NotFoundError, RootstockError, SchemaError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, TensorEntry
from rootstock.site_agent.config import ConsentConfig, EvaluationConfig, RefinementConfig
from rootstock.site_agent.consent.budget import Cost
from rootstock.site_agent.consent.question import Question, admit, cost_of, require_blob
from rootstock.site_agent.spool.spool import Spool
from rootstock.site_agent.wire.messages import EvaluationRequest
from tests.support import digits_lab
from tests.support.digits_lab import KEY, SPEC, TASK
from tests.support.questioned_lab import spool_with_teacher

ADAPTER = AdapterSpec(in_channels=8, out_channels=8)
NOW = datetime(2026, 11, 29, tzinfo=UTC)
UNTIL = int(NOW.timestamp()) + 3600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


spool_in = functools.cache(spool_with_teacher)


def request(folder: Path, **changes: Any) -> EvaluationRequest:
    (teacher,) = spool_in(folder).acknowledged()
    weights = Adapter(ADAPTER).random_start(torch.Generator().manual_seed(0)).state_dict()
    entry = AdapterEntry(spec=ADAPTER, blob=safetensors_io.write(folder / "adapter", weights))
    values: dict[str, Any] = {
        "evaluation_id": "evl-0001",
        "merge_id": "mrg-0001",
        "manifest_digest": teacher.digest,
        "task": TASK.name,
        "architecture": SPEC,
        "task_module": teacher.manifest.blobs()[1],
        "candidates": {"no_adapter": None, "zero_sample": entry},
        "refinement_spec": ADAPTER,
        "expires_at": UNTIL,
    }
    return EvaluationRequest.model_validate(values | changes)


def admitted(folder: Path, **changes: Any) -> Question:
    plan = digits_lab.plan(folder / "plan")
    question = admit(request(folder, **changes), spool_in(folder), plan, (TASK,), NOW)
    assert isinstance(question, Question)
    return question


def blob(entry: BlobEntry, **changes: Any) -> BlobEntry:
    return entry.model_copy(update=changes)


def with_adapter(change: Callable[[AdapterEntry], AdapterEntry]) -> Callable[[Path], Any]:
    def changes(folder: Path) -> dict[str, Any]:
        entry = request(folder).candidates["zero_sample"]
        assert entry is not None
        return {"candidates": {"zero_sample": change(entry)}}

    return changes


HUGE = TensorEntry(dtype="F32", shape=(75_000_000,), sha256="e" * 64)


def test_both_questions_of_a_merge_are_answered(folder: Path) -> None:
    question = admitted(folder)
    assert question.task == TASK
    assert question.manifest.category == "zero"
    assert admitted(folder, evaluation_id="evl-0001-2").request.evaluation_id == "evl-0001-2"


@pytest.mark.parametrize(
    ("kind", "says", "changes"),
    [
        (LimitError, "good until 2026-11-28 23:59 UTC", lambda _: {"expires_at": UNTIL - 3601}),
        (SchemaError, "none of merge 'mrg-0001'", lambda _: {"evaluation_id": "evl-0001-3"}),
        (SchemaError, "none of merge", lambda _: {"merge_id": "mrg-0002"}),
        (NotFoundError, "no teacher with manifest", lambda _: {"manifest_digest": "f" * 64}),
        (SchemaError, "teaches classification, not 'depth'", lambda _: {"task": "depth"}),
        (
            SchemaError,
            "the plan's is 'small-vgg'",
            lambda _: {"architecture": SPEC.model_copy(update={"split": "pool2"})},
        ),
        (
            SchemaError,
            "g_S: tensor .* has no place there",
            lambda folder: {
                "task_module": blob(
                    request(folder).task_module,
                    size=300_000_000,
                    tensors=request(folder).task_module.tensors | {"more": HUGE},
                )
            },
        ),
        (
            SchemaError,
            "g_S: blob .* has 300000000 bytes, its tensors have",
            lambda folder: {"task_module": blob(request(folder).task_module, size=300_000_000)},
        ),
        (
            SchemaError,
            "candidate 'zero_sample' takes 16 channels",
            with_adapter(
                lambda entry: entry.model_copy(
                    update={"spec": AdapterSpec(in_channels=16, out_channels=8)}
                )
            ),
        ),
        (
            SchemaError,
            "candidate 'zero_sample': tensor .* is missing",
            with_adapter(
                lambda entry: entry.model_copy(update={"blob": blob(entry.blob, tensors={})})
            ),
        ),
        (
            SchemaError,
            "the refined adapter takes 8192 channels",
            lambda _: {"refinement_spec": AdapterSpec(in_channels=8192, out_channels=8192)},
        ),
    ],
)
def test_what_no_honest_coordinator_asks_is_refused(
    folder: Path,
    kind: type[RootstockError],
    says: str,
    changes: Callable[[Path], dict[str, Any]],
) -> None:
    with pytest.raises(kind, match=says):
        admitted(folder, **changes(folder))


def test_a_teacher_that_this_coordinator_has_not_received_is_not_its_to_ask_about(
    folder: Path,
) -> None:
    stranger = Spool(folder / "spool", digits_lab.fail, KEY.public_key)
    plan = digits_lab.plan(folder / "plan")
    with pytest.raises(NotFoundError, match="has given no receipt for manifest"):
        admit(request(folder), stranger, plan, (TASK,), NOW)


def test_the_cost_is_what_a_report_may_tell_at_most(folder: Path) -> None:
    config, question = digits_lab.config(folder), admitted(folder)
    wanted = question.request.candidates["zero_sample"]
    assert wanted is not None
    size = question.request.task_module.size + wanted.blob.size
    # Error, images, and a calibration's scale, bias and error; of the refined no images, but
    # steps and seconds.
    assert cost_of(question, config, folder / "none") == Cost(
        numbers=2 * 5 + 6, bytes_down=size, refinement_steps=400
    )
    downloads = folder / "downloads"
    downloads.mkdir()
    (downloads / wanted.blob.digest).touch()
    plain = config.model_copy(
        update={
            "evaluation": EvaluationConfig(calibration=False),
            "refinement": RefinementConfig(enabled=False),
        }
    )
    assert cost_of(question, plain, downloads) == Cost(
        numbers=4, bytes_down=question.request.task_module.size
    )
    mean = digits_lab.config(folder, consent=ConsentConfig(numbers=15))
    with pytest.raises(LimitError, match=r"16 numbers.*allows consent.numbers = 15 a day"):
        cost_of(question, mean, downloads)


def test_a_file_has_room_for_its_tensors_and_a_header(folder: Path) -> None:
    module = digits_lab.start().category_module
    entry = safetensors_io.write(folder / "f", module.state_dict())
    require_blob(entry, module, what="f")
    for size in (entry.size - 4000, entry.size + (2 << 20)):
        with pytest.raises(SchemaError, match="its tensors have"):
            require_blob(blob(entry, size=size), module, what="f")
