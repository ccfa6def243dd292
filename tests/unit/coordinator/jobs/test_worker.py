import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rootstock.common.errors import ConflictError, NotFoundError, SchemaError, TransplantError
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.weights import safetensors_io
from rootstock.coordinator.config import DistillationConfig
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.material import Material, read_samples, rescale
from rootstock.coordinator.jobs.model import JobResult, TransplantJob
from rootstock.coordinator.jobs.worker import TransplantWorker
from rootstock.coordinator.paths import job_area
from tests.support.transplant_jobs import PAPERS, SPEC, Transplant, digits, trained

pytestmark = pytest.mark.slow


@pytest.fixture
def transplant(tmp_path: Path) -> Transplant:
    return Transplant(tmp_path)


def finished(job: TransplantJob) -> JobResult:
    worker = TransplantWorker(job)
    while not worker.advance().done:
        pass
    return worker.result()


def outcome(result: JobResult) -> dict[str, object]:
    """All of a result that must not depend on the clock."""
    return result.model_dump(exclude={"seconds"})


def test_progress_goes_through_both_stages(transplant: Transplant) -> None:
    worker = TransplantWorker(transplant.job())
    seen = []
    while not worker.done:
        progress = worker.advance()
        seen.append((progress.stage, progress.step, progress.steps, progress.done))
    assert seen == [
        ("zero-sample", 1, 1, False),
        ("few-sample", 20, 60, False),
        ("few-sample", 40, 60, False),
        ("few-sample", 60, 60, True),
    ]
    result = worker.result()
    assert result.few_sample is not None
    assert result.zero_sample is not None
    assert result.few_sample.blob.digest != result.zero_sample.blob.digest
    assert [point.step for point in result.curves] == list(range(1, 61))
    assert result.seconds.keys() == {"zero-sample", "few-sample"}


def test_samples_lower_the_task_loss(transplant: Transplant) -> None:
    curves = finished(transplant.job()).curves
    assert curves[-1].task_loss < 0.9 * curves[0].task_loss


def test_without_samples_the_closed_form_is_all(transplant: Transplant) -> None:
    worker = TransplantWorker(transplant.job(samples=None))
    assert worker.advance().done
    assert worker.result().few_sample is None


def test_many_pieces_give_the_bits_of_one(transplant: Transplant) -> None:
    whole = finished(transplant.job("whole", checkpoint_steps=1000))
    job = transplant.job("pieces", checkpoint_steps=7)
    while not TransplantWorker(job).advance().done:  # a new worker for every piece
        pass
    assert outcome(whole) == outcome(TransplantWorker(job).result())


DREAMT_BEFORE = {("few-sample", "auto")}
"""Stages that take the zero-sample stage's dream over."""
DREAM = {"images": 8, "steps": 40, "max_class_loss": 10.0, "max_statistics_loss": 10.0}


@pytest.mark.parametrize(
    ("zero", "few"),
    [
        ("dream", "direct-learn"),
        ("back-distill", "dream"),
        ("closed-form", "jacobian"),
        ("auto", "auto"),
    ],
)
def test_methods_by_name_resume_bit_for_bit(transplant: Transplant, zero: str, few: str) -> None:
    settings = DistillationConfig.model_validate(
        {
            "zero_sample_method": zero,
            "few_sample_method": few,
            "draws": 32,
            "steps": 20,
            "dream": DREAM,
            "teaching": {"steps": 20, "dream_views": 16, "sample_views": 16, "synthetic": 8},
        }
    )
    changes = {"settings": settings, "teacher_statistics": transplant.measured()}
    whole = finished(transplant.job("whole", checkpoint_steps=1000, **changes))
    job = transplant.job("pieces", checkpoint_steps=13, **changes)
    while not TransplantWorker(job).advance().done:  # a new worker for every piece
        pass
    pieces = TransplantWorker(job).result()
    assert outcome(whole) == outcome(pieces)
    assert whole.methods == {"zero-sample": zero, "few-sample": few}
    assert whole.fallbacks == {}
    for stage, method in (("zero-sample", zero), ("few-sample", few)):
        steps = [point.step for point in whole.curves if point.stage == stage]
        last = {"closed-form": 0, "dream": 60, "auto": 60}.get(method, 20)
        first = 41 if (stage, zero) in DREAMT_BEFORE else 1
        assert steps == list(range(first, last + 1))
    closed = finished(
        transplant.job("closed", settings=DistillationConfig(draws=32, steps=0, **PAPERS))
    )
    assert (whole.zero_sample == closed.zero_sample) == (zero == "closed-form")


@pytest.mark.parametrize(
    ("statistics", "dream", "reason"),
    [
        (False, DREAM, r"dream: method 'dream' needs the statistics.*\(there is no layer whose"),
        (True, DREAM | {"max_class_loss": 1e-6}, "dream: the dream did not converge: its class"),
    ],
)
def test_a_dream_that_fails_is_given_up_with_a_reason(
    transplant: Transplant, statistics: bool, dream: dict[str, float], reason: str
) -> None:
    values = {"draws": 64, "steps": 60, "learning_rate": 1e-2}
    shipped = {"teacher_statistics": transplant.measured() if statistics else None}
    plain = finished(transplant.job("plain", **shipped))
    settings = DistillationConfig.model_validate(
        values | {"zero_sample_method": "dream", "few_sample_method": "dream", "dream": dream}
    )
    job = transplant.job("given-up", settings=settings, **shipped)
    while not TransplantWorker(job).advance().done:
        pass
    result = TransplantWorker(job).result()
    for stage in ("zero-sample", "few-sample"):
        assert re.match(reason, result.fallbacks[stage])
    assert result.methods == {"zero-sample": "closed-form", "few-sample": "back-distill"}
    assert result.zero_sample == plain.zero_sample
    assert result.few_sample == plain.few_sample
    assert result.learned_by()["zero_sample_method"] == "closed-form"
    assert result.learned_by()["few_sample_fallback"] == result.fallbacks["few-sample"]
    assert outcome(result) == outcome(finished(job.model_copy(update={"merge_id": "again"})))


def test_a_fallback_that_fails_is_the_job_s_failure(transplant: Transplant) -> None:
    dead = {name: torch.zeros_like(t) for name, t in trained(0)[1].state_dict().items()}
    job = transplant.job(
        student_task_module=put_tensors(transplant.store, dead),
        settings=DistillationConfig(draws=64, zero_sample_method="back-distill", steps=5),
    )
    worker = TransplantWorker(job)
    worker.advance()
    with pytest.raises(TransplantError, match="student's pseudo-gradients"):
        worker.advance()


def test_statistics_of_another_task_s_module_are_left_out(transplant: Transplant) -> None:
    job = transplant.job(teacher_statistics=transplant.measured())
    layers = []
    for measured in (True, False):
        changed = job.model_copy(update={"task_measured": measured})
        source = Material.of(changed, transplant.store, torch.device("cpu")).without_samples.source
        assert source is not None
        layers.append(set(source.layers()))
    assert layers[1] == {"conv1_1", "conv1_2"}
    assert layers[1] < layers[0]


TAUGHT = {"steps": 10, "dream_views": 16, "sample_views": 16, "synthetic": 8, "synthetic_views": 8}


def test_steps_are_those_that_auto_will_take(transplant: Transplant) -> None:
    settings = DistillationConfig.model_validate({"draws": 32, "dream": DREAM, "teaching": TAUGHT})
    shipped = transplant.measured()
    totals = {
        name: TransplantWorker(transplant.job(name, settings=settings, **changes)).advance().steps
        for name, changes in {
            "dreams": {"teacher_statistics": shipped},
            "dreamless": {},
            "fits": {"student_task_module": transplant.teacher},
        }.items()
    }
    assert totals == {
        "dreams": DREAM["steps"] + TAUGHT["steps"],
        "dreamless": TAUGHT["steps"],
        "fits": 1,
    }


def test_the_closed_form_s_numbers_are_in_the_report(transplant: Transplant) -> None:
    report = finished(transplant.job()).report
    assert 0 < report["zero-sample/residual"] < 1
    assert report["zero-sample/gain"] > 1
    assert report["few-sample/residual"] == report["zero-sample/residual"]  # the same start
    fits = finished(transplant.job("fits", student_task_module=transplant.teacher)).report
    assert fits["zero-sample/residual"] < 0.9 * report["zero-sample/residual"]


def test_what_auto_measured_is_in_the_report(transplant: Transplant) -> None:
    settings = DistillationConfig.model_validate({"draws": 32, "teaching": TAUGHT})
    report = finished(transplant.job(settings=settings)).report
    for stage in ("zero-sample", "few-sample"):
        measured = {name for name in report if name.startswith(stage) and "distance" in name}
        assert measured == {
            f"{stage}/no_adapter_distance",
            f"{stage}/start_distance",
            f"{stage}/judged_start_distance",
            f"{stage}/judged_learned_distance",
        }


def test_a_finished_job_is_not_done_again(transplant: Transplant) -> None:
    job = transplant.job()
    first = finished(job)
    before = [blob.digest for blob in transplant.store.blobs()]
    again = TransplantWorker(job)
    assert again.advance().done
    assert again.result() == first
    assert [blob.digest for blob in transplant.store.blobs()] == before


def test_a_job_leaves_its_result_among_the_blobs_and_one_checkpoint_in_its_area(
    transplant: Transplant,
) -> None:
    before = {blob.digest for blob in transplant.store.blobs()}
    job = transplant.job(checkpoint_steps=5)
    area = transplant.store.area(job_area("m1"))
    worker = TransplantWorker(job)
    while not worker.advance().done:
        # The adapters so far, the checkpoint and its state: those before it are gone.
        assert len(list(area.blobs())) <= 3
    assert {blob.digest for blob in transplant.store.blobs()} == before
    result = worker.result()
    learned = {adapter.blob.digest for adapter in result.adapters().values()}
    assert {blob.digest for blob in transplant.store.blobs()} == before | learned
    assert learned < {blob.digest for blob in area.blobs()}
    assert len(list(area.blobs())) == len(learned) + 1


def test_a_lab_s_samples_and_the_operator_s_are_learned_from_together(
    transplant: Transplant,
) -> None:
    images_NCHW, labels_N = digits(3, 4)
    own = {"images": images_NCHW, "labels": labels_N}
    entry = put_tensors(transplant.store.area(job_area("m1")), own)
    job = transplant.job(own_samples=entry)
    given = read_samples(transplant.store, job)
    shared = read_samples(transplant.store, transplant.job())
    assert given.keys() == {"images", "labels"}
    assert torch.equal(given["images"], torch.cat([shared["images"], images_NCHW]))
    assert torch.equal(given["labels"], torch.cat([shared["labels"], labels_N]))
    both = finished(job)
    assert both.few_sample is not None
    assert outcome(both) != outcome(finished(transplant.job("m2")))
    alone = transplant.job("m1", samples=None, own_samples=entry)
    assert torch.equal(read_samples(transplant.store, alone)["images"], images_NCHW)
    assert finished(alone).few_sample is not None


def test_other_settings_under_the_same_merge_start_anew(transplant: Transplant) -> None:
    first = finished(transplant.job())
    other = finished(
        transplant.job(settings=DistillationConfig(draws=64, steps=60, seed=1, **PAPERS))
    )
    assert other.zero_sample is not None
    assert first.zero_sample is not None
    assert other.zero_sample.blob.digest != first.zero_sample.blob.digest


def test_a_dropped_checkpoint_is_made_again_the_same(transplant: Transplant) -> None:
    first = finished(transplant.job())
    transplant.store.drop(job_area("m1"))
    assert not TransplantWorker(transplant.job()).done
    assert outcome(finished(transplant.job())) == outcome(first)


@pytest.mark.parametrize("with_salt", [False, True])
def test_feature_norms_set_beta_and_means_set_biases(
    transplant: Transplant, *, with_salt: bool
) -> None:
    job = transplant.job(
        samples=None,
        teacher_statistics=transplant.statistics(norm=2.0, mean=0.1, with_salt=with_salt),
        student_statistics=transplant.statistics(norm=3.0, mean=0.4, with_salt=with_salt),
    )
    result = finished(job)
    assert result.zero_sample is not None
    entry = result.zero_sample.blob
    tensors = safetensors_io.read(transplant.store.local_path(entry.digest), entry)
    assert float(tensors["beta"]) == 1.5
    assert bool((tensors["convs.conv1.bias"] != 0).any())
    assert result.report["solver/beta"] == 1.5
    assert result.report["solver/biases_from_means"] == 1


@pytest.mark.parametrize("kept", ["teacher_statistics", "student_statistics"])
def test_a_lab_that_keeps_its_statistics_leaves_beta_at_one(
    transplant: Transplant, kept: str
) -> None:
    shipped = {"teacher_statistics", "student_statistics"} - {kept}
    statistics: dict[str, Any] = {
        name: transplant.statistics(norm=2.0, mean=0.1) for name in shipped
    }
    result = finished(transplant.job(samples=None, **statistics))
    assert result.report["solver/beta"] == 1
    assert result.report["solver/biases_from_means"] == 0


@pytest.mark.parametrize("norm", [0.0, float("nan"), float("inf")])
def test_a_norm_that_is_no_norm_is_named(norm: float) -> None:
    one, other = {"feature_norm": torch.tensor([norm])}, {"feature_norm": torch.tensor([1.0])}
    with pytest.raises(TransplantError, match="feature norms"):
        rescale(one, other)


def test_features_do_not_depend_on_how_many_images_there_are(transplant: Transplant) -> None:
    material = Material.of(transplant.job(), transplant.store, torch.device("cpu"))
    images_NCHW = torch.rand(130, 1, 32, 32)
    samples = material.transplant({"images": images_NCHW, "labels": torch.ones(130)}).samples
    assert samples is not None
    with torch.no_grad():
        expected = material.category_module(images_NCHW[:64])
    assert torch.equal(expected, samples.features_NCHW[:64])
    assert samples.features_NCHW.shape == (130, 4, 16, 16)


def test_a_result_before_the_end_is_a_conflict(transplant: Transplant) -> None:
    worker = TransplantWorker(transplant.job())
    worker.advance()
    with pytest.raises(ConflictError, match="m1"):
        worker.result()


def test_samples_of_other_tensors_are_refused(transplant: Transplant) -> None:
    entry = transplant.share({"pictures": torch.zeros(1, 1, 32, 32)})
    worker = TransplantWorker(transplant.job(samples=entry))
    worker.advance()
    with pytest.raises(SchemaError, match="pictures"):
        worker.advance()


def test_a_remote_store_needs_a_cache(transplant: Transplant) -> None:
    with pytest.raises(ValidationError, match="set cache to a folder"):
        transplant.job(artifacts="s3://bucket/prefix")
    assert transplant.job(artifacts="s3://bucket/prefix", cache="cache").cache == "cache"


def test_a_missing_blob_is_named(transplant: Transplant) -> None:
    entry = transplant.teacher.model_copy(update={"digest": "0" * 64})
    with pytest.raises(NotFoundError, match="0000"):
        TransplantWorker(transplant.job(teacher_task_module=entry)).advance()


def test_maps_of_two_sizes_cannot_be_joined(transplant: Transplant) -> None:
    other = ArchitectureSpec(name=SPEC.name, settings=SPEC.settings, split="pool2")
    with pytest.raises(TransplantError, match=r"16×16.*8×8"):
        TransplantWorker(transplant.job(student_architecture=other)).advance()
