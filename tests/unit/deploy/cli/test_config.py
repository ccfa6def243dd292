"""`rootstock config schema`: what an editor checks a configuration by."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from rootstock.deploy.cli.commands import app

EXAMPLES = Path(__file__).parents[4] / "deploy" / "examples"


def schema(name: str) -> dict[str, Any]:
    printed = CliRunner().invoke(app, ["config", "schema", name])
    assert printed.exit_code == 0, printed.output
    found: dict[str, Any] = json.loads(printed.stdout)
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_the_examples_tables_are_what_the_schemas_say(example: str) -> None:
    federation = tomllib.loads((EXAMPLES / example).read_text())
    coordinator, site = schema("coordinator"), schema("site")
    jsonschema.validate(
        {"net": "net", **federation["coordinator"]}, {**coordinator, "required": []}
    )
    for lab in federation["sites"]:
        table = {**federation.get("site", {}), **lab}
        table["data"] = {**federation.get("site", {}).get("data", {}), **lab.get("data", {})}
        jsonschema.validate(table, {**site, "required": []})


def test_a_wrong_key_is_found_and_a_setting_is_explained() -> None:
    site = schema("site")
    with pytest.raises(jsonschema.ValidationError, match="'epoch' was unexpected"):
        jsonschema.validate({"training": {"epoch": 3}}, {**site, "required": []})
    training = site["$defs"]["TrainingConfig"]["properties"]
    assert training["frozen_statistics"]["description"].startswith("Whether BatchNorm's running")
