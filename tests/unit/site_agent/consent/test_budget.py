"""A day's budget: what is above waits, whatever is killed and whichever way the clock is set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from rootstock.common.errors import LimitError, SchemaError
from rootstock.site_agent.config import ConsentConfig
from rootstock.site_agent.consent.budget import DAY, Budget, Cost, Instant, require_within

CONFIG = ConsentConfig(questions=3, numbers=100, bytes_down=1000, refinement_steps=50)


@dataclass
class Machine:
    """A machine whose clock may be set, and which may be started anew."""

    passed: float = 0.0
    clock: float = 1.8e9
    boot: str = "first"

    def wait(self, seconds: float) -> None:
        self.passed += seconds
        self.clock += seconds

    def start_anew(self) -> None:
        self.boot, self.passed = "second", 0.0

    def now(self) -> Instant:
        return Instant(boot=self.boot, since_boot=self.passed, wall=self.clock)


def budget(folder: Path, machine: Machine, config: ConsentConfig = CONFIG) -> Budget:
    return Budget(folder / "budget.json", config, machine.now)


@pytest.mark.parametrize(
    ("cost", "times", "setting"),
    [
        (Cost(), 3, "consent.questions = 3"),
        (Cost(numbers=50), 2, "consent.numbers = 100"),
        (Cost(bytes_down=999), 1, "consent.bytes_down = 1000"),
        (Cost(refinement_steps=25), 2, "consent.refinement_steps = 50"),
    ],
)
def test_what_is_above_a_day_s_budget_waits_for_its_turn(
    tmp_path: Path, cost: Cost, times: int, setting: str
) -> None:
    machine = Machine()
    for number in range(times):
        assert budget(tmp_path, machine).charge(f"q{number}", cost) is None
        machine.wait(3600)
    wait = budget(tmp_path, machine).charge("late", cost)
    assert wait is not None
    assert wait.settings == [setting]
    assert wait.seconds == pytest.approx(DAY - times * 3600)  # when the first is a day old
    machine.wait(wait.seconds - 1)
    assert budget(tmp_path, machine).charge("late", cost) is not None
    machine.wait(2)
    assert budget(tmp_path, machine).charge("late", cost) is None
    again = budget(tmp_path, machine).charge("later", cost)
    assert again is not None
    assert again.seconds <= DAY


def test_any_24_hours_count(tmp_path: Path) -> None:
    """No calendar day ends between two full budgets."""
    machine = Machine()
    book = budget(tmp_path, machine)
    answered = []
    for hour in range(100):
        if book.charge(f"q{hour}", Cost()) is None:
            answered.append(hour)
        machine.wait(3600)
    for hour in range(100):
        assert sum(hour <= each < hour + 24 for each in answered) <= 3
    assert len(answered) > 9


def test_a_question_that_was_begun_is_free(tmp_path: Path) -> None:
    machine = Machine()
    for _ in range(5):  # killed in the middle of it, five times
        assert budget(tmp_path, machine).charge("q", Cost(numbers=100)) is None
    assert budget(tmp_path, machine).charge("other", Cost(numbers=1)) is not None


def test_a_question_that_was_answered_is_not_free(tmp_path: Path) -> None:
    machine = Machine()
    for _ in range(3):
        assert budget(tmp_path, machine).charge("q", Cost()) is None
        budget(tmp_path, machine).answered("q")
    wait = budget(tmp_path, machine).charge("q", Cost())
    assert wait is not None
    assert wait.settings == ["consent.questions = 3"]


@pytest.mark.parametrize("step", [-400 * DAY, -3600, 3600, DAY, 400 * DAY])
def test_a_clock_that_is_set_changes_nothing(tmp_path: Path, step: float) -> None:
    machine = Machine()
    assert budget(tmp_path, machine).charge("q", Cost(numbers=100)) is None
    machine.clock += step
    wait = budget(tmp_path, machine).charge("other", Cost(numbers=1))
    assert wait is not None
    assert wait.seconds == pytest.approx(DAY)
    machine.wait(DAY + 1)
    assert budget(tmp_path, machine).charge("other", Cost(numbers=1)) is None


def test_over_a_restart_of_the_machine_a_clock_that_went_back_frees_nothing(tmp_path: Path) -> None:
    machine = Machine()
    assert budget(tmp_path, machine).charge("q", Cost(numbers=99)) is None
    machine.start_anew()
    machine.clock -= DAY
    assert budget(tmp_path, machine).charge("other", Cost(numbers=2)) is not None
    assert budget(tmp_path, machine).charge("small", Cost(numbers=1)) is None
    machine.wait(DAY + 1)
    assert budget(tmp_path, machine).charge("other", Cost(numbers=100)) is None


def test_this_machine_tells_its_own_time(tmp_path: Path) -> None:
    first = Instant.now()
    assert 0 <= Instant.now().since(first) < 60
    real = Budget(tmp_path / "budget.json", CONFIG)
    assert real.charge("q", Cost(numbers=100)) is None
    assert real.charge("other", Cost(numbers=100)) is not None


def test_more_than_a_whole_day_s_budget_is_refused() -> None:
    require_within(Cost(numbers=100, bytes_down=1000), CONFIG)
    with pytest.raises(
        LimitError,
        match=r"draws 1 questions, 101 numbers, and this lab allows consent.numbers = 100 a day",
    ):
        require_within(Cost(numbers=101), CONFIG)


def test_a_damaged_book_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "budget.json").write_text("{}")
    with pytest.raises(SchemaError, match=r"budget\.json .*remove the file"):
        budget(tmp_path, Machine())
