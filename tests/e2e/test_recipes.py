"""Labs learn from another lab's net by recipes `nettailor` and `l2t`, and join like any other."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
from mlflow import MlflowClient
from PIL import Image
from sklearn.datasets import load_digits

from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.net.reader import NetReader
from rootstock.deploy.federation.config import FederationConfig
from rootstock.site_agent.identity import coordinator_key
from rootstock.site_agent.spool.spool import Spool
from tests.support.federation_processes import Running, digits_federation, merged

pytestmark = pytest.mark.e2e

Federation = Callable[[FederationConfig], Running]
NET = "tailored-digits"
"""A name of its own: the tests share an MLflow."""


def founder_and_heirs(exported: Path) -> FederationConfig:
    """The founder trains as ever; one lab tailors what the founder's net is, one learns from it."""
    transferring = {
        "recipe": "l2t",
        "optimiser": "sgd",
        "learning_rate": 0.05,
        "epochs": 60,
        "l2t": {
            "sources": [{"name": "founder", "kind": "export", "path": str(exported)}],
            "meta_period": 8,
        },
    }
    tailoring = {
        "recipe": "nettailor",
        "nettailor": {
            "backbone": {"kind": "export", "path": str(exported)},
            "student_epochs": 8,
            "tuning_epochs": 6,
            "tolerance": 10.0,
        },
    }
    architecture = {
        "name": "small-resnet",
        "split": "block2_1",
        "settings": {"width": 8, "blocks": 1},
    }
    config = digits_federation(plan={"architecture": architecture})
    zero, one = config.sites
    two = {"site": "lab-two", "category": "two", "data": {"class_name": "2", "part": 3}}
    return config.model_copy(
        update={
            "net": NET,
            "site": {**config.site, "training": {"epochs": 10, "learning_rate": 0.01}},
            "sites": (
                zero,
                {**one, "training": tailoring},
                {**two, "training": transferring},
            ),
        }
    )


def test_heirs_of_a_net_are_shipped_admitted_and_transplanted(
    federation: Federation, tmp_path: Path, mlflow_uri: str
) -> None:
    backbone = tmp_path / "zero.safetensors"
    running = federation(founder_and_heirs(backbone))
    running.start_coordinator()
    running.start_site("lab-zero")
    running.until("the founding", merged("zero"))
    words = ("--category", "zero", "--task", "classification", "--out", str(backbone))
    running.run("net", "export", *words)
    running.start_site("lab-one")
    running.start_site("lab-two")
    running.until("the tailored category", merged("one"))
    running.until("the category that learned from a source", merged("two"))

    with NetReader.open(running.coordinator) as view:
        assert view.head is not None
        tree = view.tree(view.head)
        module = tree.category_modules["one"]
        extractor = module.architecture.extractor
        assert extractor is not None
        assert (extractor.name, extractor.settings["backbone"]) == (
            "tailored-resnet", "small-resnet",
        )  # fmt: skip
        manifest = shipped(running)
        assert manifest.category_module.digest == module.blob.digest
        assert manifest.metrics["nettailor/tolerance_met"] == 1
        assert manifest.metrics["nettailor/params_removed"] > 0
        weights = safetensors.torch.load_file(view.store.local_path(module.blob.digest))
    # What the lab kept of the founder's net is the founder's, to the last bit.
    theirs = {value.numpy().tobytes() for value in safetensors.torch.load_file(backbone).values()}
    shared = {name for name, value in weights.items() if value.numpy().tobytes() in theirs}
    assert {"conv1.weight", "bn1.running_mean"} <= shared
    assert shared == {n for n in weights if "proxies" not in n and "alpha" not in n}

    assert running.json("net", "show")["categories"] == ["one", "two", "zero"]
    assert running.json("net", "verify")["ok"] is True
    digits = load_digits()
    pictures = []
    for index, image in enumerate(digits.images[digits.target == 1][:12]):
        pictures.append(str(tmp_path / f"{index}.png"))
        Image.fromarray((image * 255 / 16).astype("uint8")).save(pictures[-1])
    logits = {
        name: [
            json.loads(line)["logit"]
            for line in running.run(
                "net", "predict", "--task", "classification", "--category", name, *pictures
            ).splitlines()
        ]
        for name in ("one", "zero")
    }
    assert len(logits["one"]) == 12
    assert sum(map(operator.gt, logits["one"], logits["zero"])) >= 9, logits
    runs = pictured(mlflow_uri)
    assert runs.keys() == {"one", "two"}
    errors = {name: run["teacher/error/classification"] for name, run in runs.items()}
    assert max(errors.values()) <= 20, errors
    assert runs["one"]["teacher/nettailor/params_removed"] > 0
    where = {key: value for key, value in runs["two"].items() if "teacher/lambda/founder/" in key}
    assert "teacher/lambda/founder/category_module.block1_1 to block1_1" in where
    assert len(set(where.values())) > 1


def pictured(mlflow_uri: str) -> dict[str, dict[str, float]]:
    """Return the metrics of each merge in the history that shows what its recipe learned."""
    client = MlflowClient(tracking_uri=mlflow_uri, registry_uri=mlflow_uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    return {
        run.data.tags["rootstock.category"]: run.data.metrics
        for run in client.search_runs(experiments, f"tags.`rootstock.net` = '{NET}'")
        if "recipe.png" in {file.path for file in client.list_artifacts(run.info.run_id)}
    }


def shipped(running: Running) -> TeacherManifest:
    lab = running.site("lab-one")
    spool = Spool(lab.state / "spool", lambda text: None, coordinator_key(lab))
    (manifest,) = [
        entry.manifest
        for entry in spool.acknowledged()
        if isinstance(entry.manifest, TeacherManifest)
    ]
    return manifest
