import json
from pathlib import Path

import pytest

from rootstock.common.logs import MAX_LOG_BYTES, open_log


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_log_is_one_json_object_a_line_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "lab" / "agent.log"
    for _ in range(2):
        with open_log(path, site="lab-α") as log:
            log.info("starts", numbers={"error": 1.5})
    assert [line["event"] for line in lines(path)] == ["starts", "starts"]
    assert lines(path)[0]["site"] == "lab-α"
    assert lines(path)[0]["level"] == "info"


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_a_log_that_was_rotated_away_is_opened_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "agent.log"
    with open_log(path) as log:
        log.info("before")
        if how == "renamed":
            path.rename(tmp_path / "agent.log.1")
        else:
            path.unlink()
        log.info("after")
        log.info("after")
    assert [line["event"] for line in lines(path)] == ["after", "after"]
    if how == "renamed":
        assert [line["event"] for line in lines(tmp_path / "agent.log.1")] == ["before"]


def test_a_log_that_was_cut_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    with open_log(path) as log:  # logrotate's copytruncate
        log.info("before")
        path.write_bytes(b"")
        log.info("after")
    assert [line["event"] for line in lines(path)] == ["after"]


def test_two_logs_of_a_bounded_size_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    filler = "x" * (1 << 20)
    with open_log(path) as log:
        for number in range(40):
            log.info(f"event {number}", filler=filler)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["agent.log", "agent.log.1"]
    size = sum(each.stat().st_size for each in tmp_path.iterdir())
    assert size < 2 * MAX_LOG_BYTES + (3 << 20)
    events = [
        line["event"] for each in (path.with_name("agent.log.1"), path) for line in lines(each)
    ]
    assert events == [f"event {number}" for number in range(40 - len(events), 40)]
    assert len(events) > 16


def test_what_cannot_be_written_is_raised() -> None:
    with pytest.raises(OSError, match="No space left"), open_log(Path("/dev/full")) as log:
        log.info("starts")


def test_a_traceback_shows_no_local_variables(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    with open_log(path) as log:
        try:
            secret = "what a patient has"  # noqa: F841
            raise ValueError("broken")
        except ValueError:
            log.exception("failed")
    assert "what a patient has" not in path.read_text()
    assert "broken" in path.read_text()


def test_a_line_commands_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    with open_log(path) as log:
        log.info("heads.fetched", origin="a head\x9b2J\x1b[8m\u202e", number=3)
    (line,) = lines(path)
    assert line["origin"] == "a head\ufffd2J\ufffd[8m\ufffd"
    assert line["number"] == 3
