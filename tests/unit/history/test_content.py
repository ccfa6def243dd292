from coordinator.history.content import (
    MERGE_ID,
    Point,
    merge_tags,
    metrics,
    milliseconds,
    parameters,
    version_tags,
)
from tests.unit.history.samples import digest, record


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


def test_a_version_carries_digests_but_not_the_merges_state() -> None:
    tags = version_tags(record(["cat", "cow"]))
    assert "rootstock.digest.manifest" in tags
    assert "rootstock.state" not in tags


def test_the_error_falls_from_stage_to_stage() -> None:
    points = [p for p in metrics(record(["cat", "cow"])) if p.key == "error"]
    assert points == [Point("error", 54.0, 0), Point("error", 31.25, 1), Point("error", 3.5, 3)]


def test_losses_keep_their_steps() -> None:
    points = [p for p in metrics(record(["cat", "cow"])) if p.key == "few-sample/loss"]
    assert [p.step for p in points] == [0, 10, 20, 30]


def test_parameters_are_text() -> None:
    assert parameters(record(["cat"]))["ridge"] == "1e-06"


def test_a_moment_in_milliseconds() -> None:
    assert milliseconds("1970-01-01T00:00:02.500+00:00") == 2500
