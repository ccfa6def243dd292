"""`rootstock site adapt | sources` beside an agent that runs, against a real coordinator."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import tomli_w
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner, Result

from rootstock.common.compatible.rotation import TURNS
from rootstock.common.errors import ConflictError, NotFoundError, RootstockError
from rootstock.common.images import pixels
from rootstock.common.nets.architectures import build_head, image_form, initial_modules, initialise
from rootstock.common.nets.graph import Edge, ModuleRef, NetTree
from rootstock.common.protocol import Heads
from rootstock.coordinator.export.exporting import export_composed
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.plan.heads import HeadsFile, publish
from rootstock.deploy.cli.commands import app
from rootstock.site_agent.config import SiteConfig, TrainingConfig
from rootstock.site_agent.data.datasets import open_dataset
from rootstock.site_agent.data.load import load
from rootstock.site_agent.transfer.adapt_card import AdaptedCard
from tests.support.agent_thread import Running, running, site
from tests.support.centre import ARCHITECTURE, Centre

TASK = "classification"


class Place(NamedTuple):
    """A coordinator, and a lab whose agent has shipped its teacher and watches."""

    centre: Centre
    config: SiteConfig
    toml: Path
    agent: Running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("commands")
    with Centre(root / "centre") as centre:
        config = site(root / "lab", centre.address, training=TrainingConfig(epochs=2))
        toml = root / "site.toml"
        values = config.model_dump(mode="json", exclude_none=True)
        toml.write_text(tomli_w.dumps(values))
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
            yield Place(centre, config, toml, agent)
            assert agent.status()["phase"] == "watching", "the commands disturbed the agent"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return yes/… and no/… with dim digits of the lab's kind."""
    folder = tmp_path_factory.mktemp("dim")
    source = open_dataset(site(folder, "127.0.0.1:1").data)
    for side, digit in (("yes", "0"), ("no", "7")):
        (folder / side).mkdir()
        found = [i for i, row in enumerate(source.labels(frozenset(digit), fail)) if row[1]]
        for index in found[:20]:
            image = pixels(source.image(index), image_form(ARCHITECTURE)) // 2
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / side / f"{index}.png")
    return folder


def fail(error: Exception) -> None:
    raise AssertionError(error)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["site", *map(str, words)])


def raised(result: Result) -> RootstockError:
    assert isinstance(result.exception, RootstockError), result.output
    return result.exception


def publish_rotation(centre: Centre) -> Heads:
    head = initialise(build_head(ARCHITECTURE, TURNS), 0)
    rotation = put_tensors(centre.store, head.state_dict())
    return publish(
        HeadsFile(centre.config.state / "heads.json"), centre.registry, "test", {}, rotation
    )


def test_adapt_beside_a_running_agent(place: Place, images: Path, tmp_path: Path) -> None:
    words: list[str | Path] = ["adapt", "--config", place.toml, "--images", images, "--steps", "3"]
    missing = raised(run(*words))
    assert isinstance(missing, NotFoundError)
    assert "publishes no heads and no rotation head" in str(missing)
    heads = publish_rotation(place.centre)
    result = run(*words, "--labelled", images, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    folder = Path(told.pop("out"))
    assert folder == tmp_path / "out"
    card = AdaptedCard.model_validate(told)
    assert (card.images, card.learned_from, card.judged_on, card.labelled) == (40, 28, 12, 40)
    assert card.made_of["heads"] == heads.content_digest()
    assert card.batch_norm_layers == 0
    errors = card.errors[TASK]
    assert errors.re_estimated == errors.source
    again = raised(run(*words, "--out", tmp_path / "out"))
    assert isinstance(again, ConflictError)
    # For people, and to the state folder.
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "The net has no BatchNorm: with statistics anew it is the net as it is." in result.stdout
    report, _, path = result.stdout.partition("written to ")
    assert max(map(len, report.splitlines())) <= 80
    (kept,) = (place.config.state / "adapted").iterdir()
    assert "note: the rotation head tells" in result.stderr
    assert path == f"{kept}\n"


def exported(centre: Centre, folder: Path, seed: int) -> Path:
    """Export a net as the coordinator does; its f has initial weights of some seed."""
    f, heads = initial_modules(ARCHITECTURE, centre.plan.tasks, seed)

    def ref(state: dict[str, Tensor]) -> ModuleRef:
        blob = put_tensors(centre.store, state)
        return ModuleRef(blob=blob, architecture=ARCHITECTURE, submission="0" * 64)

    tree = NetTree(
        architecture=ARCHITECTURE,
        tasks=centre.plan.tasks,
        category_modules={"cow": ref(f.state_dict())},
        task_modules={TASK: ref(heads[TASK].state_dict())},
        edges=(Edge(category="cow", task=TASK),),
    )
    out = folder / f"cow-{seed}.safetensors"
    export_composed(tree, centre.store, "cow", TASK, out)
    return out


def test_sources_are_exported_nets(place: Place, tmp_path: Path) -> None:
    nothing = raised(run("sources", "--config", place.toml))
    assert isinstance(nothing, NotFoundError)
    # The first is what every lab starts from, the second has nothing in common with it.
    seed = place.centre.config.plan.seed
    given = [exported(place.centre, tmp_path, each) for each in (seed, seed + 1)]
    words: list[str | Path] = [
        "sources",
        "--config",
        place.toml,
        "--from",
        given[0],
        "--from",
        given[1],
    ]
    result = run(*words, "--steps", "2", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    rows = {row["source"]: row for row in told["sources"]}
    assert set(rows) == {f"cow ({path.stem})" for path in given}
    own, initial = told["references"]
    assert own["source"] == "this lab's own"
    # f of the first file is the plan's, bit for bit, so it does as the plan's does.
    assert rows[f"cow ({given[0].stem})"]["at_once"] == initial["at_once"]
    assert rows[f"cow ({given[0].stem})"]["fine_tuned"] == initial["fine_tuned"]
    assert rows[f"cow ({given[1].stem})"]["at_once"] != initial["at_once"]
    data = load(place.config.data, "digit-0", image_form(ARCHITECTURE), batch_size=32, warn=print)
    assert told["holdout"] == len(data.holdout)
    result = run(*words, "--steps", "0")
    assert result.exit_code == 0, result.output
    assert " 1. cow (cow-" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_lab_that_has_trained_nothing(tmp_path: Path) -> None:
    config = site(tmp_path / "lab", "127.0.0.1:1")
    before = sorted((tmp_path / "lab").rglob("*"))
    toml = tmp_path / "site.toml"
    toml.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    for words in (["adapt", "--images", tmp_path], ["sources"]):
        error = raised(run(*words, "--config", toml))
        assert isinstance(error, NotFoundError)
        assert "no trained teacher net; let `rootstock site run` train one" in str(error)
    assert sorted((tmp_path / "lab").rglob("*")) == before


def test_a_lab_whose_settings_have_changed(place: Place, images: Path, tmp_path: Path) -> None:
    other = place.config.model_copy(update={"training": TrainingConfig(epochs=5)})
    toml = tmp_path / "site.toml"
    toml.write_text(tomli_w.dumps(other.model_dump(mode="json", exclude_none=True)))
    error = raised(run("adapt", "--config", toml, "--images", images))
    assert isinstance(error, NotFoundError)
    assert "holds 1 trained teacher net(s), none under the plan" in str(error)


def test_a_lab_whose_key_is_missing_gets_no_other(
    place: Place, images: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    shutil.copytree(place.config.state / "spool", state / "spool")
    toml = tmp_path / "site.toml"
    values = place.config.model_copy(update={"state": state})
    toml.write_text(tomli_w.dumps(values.model_dump(mode="json", exclude_none=True)))
    for words in (["adapt", "--images", images], ["sources"]):
        error = raised(run(*words, "--config", toml))
        assert isinstance(error, NotFoundError)
        assert "this lab has not joined" in str(error)
    assert [path.name for path in state.iterdir()] == ["spool"]
