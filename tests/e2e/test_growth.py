"""An operator grows a net: a plan, a review, a rollback, a task of their own. Real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from rootstock.deploy.federation.config import FederationConfig
from tests.support.federation_processes import Running, digits_federation, merge_of, merged

pytestmark = pytest.mark.e2e

Federation = Callable[[FederationConfig], Running]


def samples(folder: Path) -> Path:
    """40 pictures of a zero, of a one and of other digits for the net's categories zero and one."""
    data = load_digits()
    for digit, category in enumerate(("zero", "one")):
        for side, chosen in (("yes", data.target == digit), ("no", data.target > 1)):
            (folder / category / side).mkdir(parents=True)
            for index, image in enumerate(data.images[chosen][:40]):
                picture = Image.fromarray((image * 255 / 16).astype("uint8"))
                picture.save(folder / category / side / f"{index}.png")
    return folder


def test_a_net_is_planned_reviewed_rolled_back_and_grows_on(
    federation: Federation, tmp_path: Path
) -> None:
    config = digits_federation(
        growth={"automatic": False},
        acceptance={"max_error": 100.0, "max_above_teacher": 100.0, "review": "always"},
    )
    # A name of its own: the tests share an MLflow, where a net's merges are known by their ids.
    running = federation(config.model_copy(update={"net": "planned-digits"}))
    running.start_coordinator()
    running.until("the coordinator", lambda _: True)
    running.start_site("lab-zero")

    def held(answer: Any) -> bool:
        return any(merge.held for merge in answer.merges)

    running.until("a held operation", held)
    (planned,) = running.json("net", "plan")["operations"]
    assert (planned["wave"], planned["operation"], planned["site"]) == (1, "found", "lab-zero")

    # It waits until a second lab has shipped, and the net is founded on what the two share.
    running.start_site("lab-one")
    folder = samples(tmp_path / "samples")

    def both(_: Any) -> bool:
        operations = running.json("net", "plan")["operations"]
        return [each["operation"] for each in operations] == ["found", "new-category"]

    running.until("the second lab's teacher", both, pause=1.0)
    founding = running.json("net", "found", "--samples", str(folder), "--steps", "60")
    assert (founding["merge"], founding["coordinator_runs"]) == ("mrg-0001", True)
    assert [each["category"] for each in founding["categories"]] == ["zero", "one"]

    def reviewing(answer: Any) -> bool:
        return any(merge.state == "reviewing" for merge in answer.merges)

    running.until("a merge that waits for review", reviewing)
    running.run("coordinator", "approve", "mrg-0001", "--reason", "the first lab")
    running.until("the founding", merged("zero"))

    record = running.json("net", "log")["versions"][0]["merge"]
    assert (record["operation"], record["candidate"]) == ("found", "own_samples")
    running.until(
        "the second lab's operation", lambda a: held(a) and merge_of(a, "one") is not None
    )
    running.run("net", "grow")
    running.until("the second review", reviewing)
    running.run("coordinator", "approve", "mrg-0002", "--reason", "fits")
    running.until("the second merge", merged("one"))
    verified = running.json("net", "verify")
    assert (verified["ok"], verified["version"], verified["problems"]) == (True, 2, [])

    # Version 1 is what version 2 stands on; the head can go.
    error = running.run("net", "rollback", "1", "--reason", "no", code=12)
    assert "version 2 stands on it" in error
    back = running.json("net", "rollback", "2", "--reason", "wrong labels")
    assert back == {"rolled_back": [2], "head": 1}
    assert [v["number"] for v in running.json("net", "log")["versions"]] == [1]
    shown = running.json("net", "show")
    assert (shown["version"], shown["categories"]) == (1, ["zero"])

    def told(answer: Any) -> bool:
        merge = merge_of(answer, "one")
        return merge is not None and merge.state == "rolled_back" and merge.logged

    merge = merge_of(running.until("the rollback in the history", told), "one")
    assert merge is not None
    assert merge.reason == "rolled back by the operator: wrong labels"

    # A task of the operator's own: learned on the frozen category module, committed on top.
    words = ("net", "learn", "round", "--samples", str(folder), "--steps", "60")
    learned = running.json(*words, "--categories", "zero")
    assert learned["coordinator_runs"] is True
    (join,) = learned["joins"]
    running.until("the third review", reviewing)
    running.run("coordinator", "approve", join["merge"], "--reason", "for the club")

    def joined(answer: Any) -> bool:
        return any(m.task == "round" and m.state == "merged" and m.logged for m in answer.merges)

    answer = running.until("the learned task", joined)
    assert answer.net_version == 3
    verified = running.json("net", "verify")
    assert (verified["ok"], verified["version"], verified["problems"]) == (True, 3, [])
    head = running.json("net", "log")["versions"][0]
    assert head["merge"]["operation"] == "learn-task"
    assert [v["number"] for v in running.json("net", "log")["versions"]] == [3, 1]
    # What was rolled back is still whole.
    assert running.json("net", "verify", "--version", "2")["ok"] is True
