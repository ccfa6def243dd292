import pytest

from rootstock.coordinator.history.content import (
    MERGE_ID,
    Point,
    merge_tags,
    metrics,
    milliseconds,
    parameters,
    version_tags,
)
from tests.support.merge_records import digest, record


def test_tags_hold_every_digest_both_versions_and_the_adapter() -> None:
    tags = merge_tags(record(["cat", "cow"]))
    assert tags[MERGE_ID] == "m1"
    assert tags["rootstock.parent.number"] == "0"
    assert tags["rootstock.parent.digest"] == digest("version 0")
    assert tags["rootstock.number"] == "1"
    assert tags["rootstock.digest"] == digest("version 1")
    assert tags["rootstock.digest.category_module"] == digest("cow")
    assert tags["rootstock.adapter.uri"] == "file:///store/blobs/ab/ab"


def test_what_is_not_known_has_no_tag() -> None:
    tags = merge_tags(record(["cat"], adapter_uri=None))
    assert not {"rootstock.parent.number", "rootstock.adapter.uri", "rootstock.reason"} & set(tags)


def test_a_version_carries_its_own_digests_and_the_merges_state_but_not_its_labs() -> None:
    tags = version_tags(record(["cat", "cow"]))
    assert tags["rootstock.digest.category_module"] == digest("cow")
    assert "rootstock.digest.manifest" not in tags
    assert tags["rootstock.state"] == "merged"
    assert "rootstock.site" not in tags


def test_numbers_of_a_calibration_have_a_group_of_their_own() -> None:
    numbers = {"refined_error": 2.0, "refined_scale": 1.5, "refined_uncalibrated_error": 3.0}
    keys = {point.key for point in metrics(record(["cat", "cow"], numbers=numbers, curves=()))}
    assert keys == {
        "error",
        "refined_error",
        "calibration/refined_scale",
        "calibration/refined_uncalibrated_error",
    }


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, 3.5),
        ({"candidate": "zero_sample"}, 31.25),
        ({"candidate": "no_adapter"}, 54.0),
        ({"candidate": None}, 2.5),  # joined as it was trained
        ({"candidate": None, "number": None, "digest": None}, None),
    ],
)
def test_the_error_of_what_was_joined(changes: dict[str, object], error: float | None) -> None:
    assert record(["cat", "cow"], **changes).error == error


def test_no_adapter_s_error_is_the_calibrated_one_where_there_is_one() -> None:
    numbers = {"no_adapter_error": 54.0, "no_adapter_calibrated_error": 20.0}
    joined = record(["cat", "cow"], candidate="no_adapter", numbers=numbers)
    assert joined.error == 20.0


def test_the_error_falls_from_stage_to_stage() -> None:
    points = [p for p in metrics(record(["cat", "cow"])) if p.key == "error"]
    assert points == [Point("error", 54.0, 0), Point("error", 31.25, 2), Point("error", 3.5, 4)]


def test_losses_keep_their_steps() -> None:
    points = [p for p in metrics(record(["cat", "cow"])) if p.key == "few-sample/loss"]
    assert [p.step for p in points] == [0, 10, 20, 30]


def test_parameters_are_text() -> None:
    assert parameters(record(["cat"]))["ridge"] == "1e-06"


def test_a_moment_in_milliseconds() -> None:
    assert milliseconds("1970-01-01T00:00:02.500+00:00") == 2500


def test_the_teacher_s_numbers_have_a_group_and_keys_that_mlflow_takes() -> None:
    given = {
        "error/classification": 3.0,
        "lambda/mnist/block1_1->relu1_2": 1.5,
        "lambda/mnist/block1_1 to relu1_2": 9.0,  # the same key for MLflow: the first stays
        "../odd>é": 2.0,
        "x" * 300: 1.0,
        "y" * 199 + "/z": 4.0,
    }
    shown = {p.key: p.value for p in metrics(record(["cat", "cow"], teacher_numbers=given))}
    teacher = {key: value for key, value in shown.items() if key.startswith("teacher/")}
    assert teacher == {
        "teacher/error/classification": 3.0,
        "teacher/lambda/mnist/block1_1 to relu1_2": 9.0,
        "teacher/_/odd__": 2.0,
        "teacher/" + "x" * 200: 1.0,
        "teacher/" + "y" * 199: 4.0,
    }
