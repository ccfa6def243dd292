import itertools
import re
from html.parser import HTMLParser

import pytest

from rootstock.coordinator.history.content import decision, description, escaped, outcome, run_name
from rootstock.coordinator.history.loss_chart import charts
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.history.report import duration, error_rows, render, stages
from rootstock.coordinator.jobs.model import CurvePoint
from tests.support.merge_records import record

HOSTILE = '</p><script src="https://evil.example/x.js"></script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def says(self, words: str) -> bool:
        return words in re.sub(r"\s+", " ", " ".join(self.text))


def learned(**changes: object) -> MergeRecord:
    """A merge with both stages, of which the first dreamed."""
    points = [("zero-sample", step) for step in (1, 150, 151, 550)]
    points += [("few-sample", step) for step in (151, 550)]
    values: dict[str, object] = {
        "parameters": {
            "zero_sample_method": "auto",
            "few_sample_method": "auto",
            "distillation.dream.steps": 150,
            "distillation.teaching.steps": 400,
        },
        "curves": tuple(
            CurvePoint(stage=stage, step=step, loss=1 / step, task_loss=0.0, distillation_loss=0.0)
            for stage, step in points
        ),
    }
    return record(["cat", "cow"], **(values | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Merged as net version 1, on version 0."),
        ({"parent_number": None}, "Founded the net digits as its version 1."),
        ({"state": "rolled_back"}, "Merged as net version 1 and rolled back since."),
        ({"state": "rejected", "number": None}, "Rejected; the net stays at version 0."),
        ({"state": "failed", "number": None, "parent_number": None}, "Failed."),
    ],
)
def test_the_outcome_is_a_sentence(changes: dict[str, object], sentence: str) -> None:
    assert outcome(record(["cat", "cow"], **changes)) == sentence


def test_a_run_s_name_says_what_became_of_it() -> None:
    assert run_name(record(["cat", "cow"])) == "v1 cow → classification"
    assert run_name(record(["cat", "cow"], state="rejected")) == "cow → classification (rejected)"


def test_the_decision_is_the_reason_or_what_the_numbers_say() -> None:
    assert decision(record(["cat", "cow"], reason="too bad")) == "too bad"
    told = "Joined by the adapter refined at the lab: 3.5% error, the teacher has 2.5%."
    assert decision(record(["cat", "cow"])) == told


def test_a_description_shows_a_reason_as_it_is() -> None:
    text = description(record(["cat", "cow"], reason="[a](http://evil.example) <b>*c*"))
    assert r"\[a\]\(http://evil.example\) \<b\>\*c\*" in text
    assert escaped("plain words, 3.5%") == "plain words, 3.5%"


def test_a_report_needs_nothing_else_and_runs_nothing() -> None:
    text = render(learned(), {"net.png": b"png"})
    page = Page(text)
    assert not page.all("script")
    assert not page.all("link")
    assert {image["src"].partition(";")[0] for image in page.all("img") if image["src"]} == {
        "data:image/png"
    }
    assert "http:" not in text.replace("http-equiv", "")
    assert "https:" not in text
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_a_report_can_be_read_by_all() -> None:
    text = render(learned(), {"net.png": b"png"})
    page = Page(text)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table")) > 4
    assert all(image.get("alt") for image in page.all("img"))
    assert all(chart.get("role") == "img" and chart.get("aria-label") for chart in page.all("svg"))
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(headings))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {section["aria-labelledby"] for section in page.all("section")} <= ids
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize(
    "place", ["reason", "recipe", "zero_sample_fallback", "zero_sample_without"]
)
def test_words_from_peers_are_escaped(place: str) -> None:
    changes: dict[str, object] = {"reason": HOSTILE}
    if place != "reason":
        changes = {"parameters": {"zero_sample_method": "closed-form", place: HOSTILE}}
    page = Page(render(learned(**changes), {}))
    assert not page.all("script")
    assert not page.all("img")
    assert any(HOSTILE in part for part in page.text)  # shown as it is


@pytest.mark.parametrize("state", ["rejected", "failed"])
def test_what_was_not_merged_says_why_and_shows_the_net_as_it_stays(state: str) -> None:
    merge = learned(state=state, number=None, digest=None, candidate=None, reason="above 20.0%")
    page = Page(render(merge, {"net.png": b"png"}))
    assert page.says("above 20.0%")
    assert page.says("the net stays at version 0")
    assert "new" not in str(page.all("img")[0]["alt"]).lower()
    assert not any(row.kept for row in error_rows(merge))


def test_a_merge_of_nothing_but_its_name_has_a_report() -> None:
    bare = record(["cat"], tree=None, numbers={}, curves=(), parameters={}, digests={}, earlier=())
    assert Page(render(bare, {})).says("Founded the net digits")


def test_the_kept_candidate_is_marked_and_uncalibrated_errors_stand_beside() -> None:
    numbers = {"teacher_error": 1.0, "zero_sample_error": 8.0, "zero_sample_uncalibrated_error": 38}
    rows = error_rows(learned(candidate="zero_sample", numbers=numbers))
    assert [(row.label, row.kept, row.uncalibrated) for row in rows] == [
        ("teacher", False, None),
        ("zero samples", True, 38.0),
    ]


def test_stages_say_how_many_steps_of_what() -> None:
    numbers = {"zero-sample/residual": 0.25, "seconds/zero-sample": 3.0}
    zero, few = stages(learned(numbers=numbers))
    assert zero.steps.startswith("150 steps of dreaming images, then 400 steps of learning")
    assert few.steps.startswith("400 steps of learning")
    assert (zero.seconds, few.seconds) == (3.0, None)
    assert [(measure.label, measure.value) for measure in zero.measures] == [
        ("Closed form: residual", 0.25)
    ]
    (solved,) = stages(learned(parameters={"zero_sample_method": "closed-form"}, curves=()))
    assert (solved.steps, solved.chart) == ("solved, without a step", None)


def test_a_chart_s_lines_stay_in_its_box() -> None:
    losses = [(1, 100.0, 1e-12), (5, 0.5, 0.25), (9, 3e-7, 1e-7)]
    chart = charts(
        [
            CurvePoint(stage="few-sample", step=s, loss=a, task_loss=b, distillation_loss=a - b)
            for s, a, b in losses
        ],
        {"few-sample": 4},
    )["few-sample"]
    assert {line.name for line in chart.lines} == {"loss", "task", "distillation"}
    for line in chart.lines:
        for point in line.points.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 640
            assert 0 <= y <= 220
    assert [tick.text for tick in chart.x] == ["1", "5", "9"]
    assert chart.dreamed is not None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.076, "76 ms"), (44, "44.0 s"), (172, "2 min 52 s"), (7320, "2 h 2 min")],
)
def test_times_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text
