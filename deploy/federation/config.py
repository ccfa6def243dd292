"""FEDERATION.toml: a coordinator and its labs on one machine.

::

    net = "digits"

    [coordinator.plan.architecture]     # any table of coordinator.toml
    name = "small-vgg"
    split = "pool1"

    [site.training]                     # any table of site.toml, for every lab
    epochs = 30

    [[sites]]                           # one lab; its keys win over [site]
    site = "lab-zero"
    category = "zero"
    data.class_name = "0"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rootstock.common.config import check, expand, load
from rootstock.common.documents import Document
from rootstock.common.errors import ConfigurationError
from rootstock.common.nets.spec import Name
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.site_agent.config import SiteConfig

OTHERS = frozenset({"coordinator", "mlflow", "mlflow-ui"})
"""Processes beside the labs' agents; each has a log and a configuration by its name."""

UNATTENDED: dict[str, Any] = {
    "acceptance": {"first": "rule", "min_samples": 0},
    "witnesses": {"patience_days": 0.005, "unsure": "rule"},
}
"""On one machine all labs are one operator's, who is not asked; FEDERATION.toml may say otherwise.
"""


class FederationConfig(Document):
    """The file as written; `resolve` turns it into whole configurations."""

    net: Name
    coordinator: dict[str, Any]
    site: dict[str, Any] = Field(default_factory=dict)
    sites: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=64)


class Federation(Document):
    """A coordinator's configuration and those of its labs, all checked."""

    coordinator: CoordinatorConfig
    sites: tuple[SiteConfig, ...]

    def only(self, names: Sequence[str]) -> Federation:
        """Return the federation with some of its labs."""
        known = [site.site for site in self.sites]
        if unknown := [name for name in names if name not in known]:
            raise ConfigurationError(
                f"there is no lab '{unknown[0]}'; there are {', '.join(known)}"
            )
        return self.model_copy(
            update={"sites": tuple(site for site in self.sites if site.site in names)}
        )


def read(path: Path) -> FederationConfig:
    """Read FEDERATION.toml; relative paths of data and of nets are taken from the file's folder."""
    config = load(path, FederationConfig)
    places = [(_table(config.coordinator, "samples"), "folder")]
    places += [(table, "path") for site in (config.site, *config.sites) for table in _tables(site)]
    for table, key in places:
        if isinstance(table.get(key), str):
            try:
                table[key] = str((path.parent / expand(table[key])).resolve())
            except ConfigurationError as error:
                raise ConfigurationError(f"{path}: {error}") from error
    return config


def _tables(site: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of a lab, not checked yet, that may have a path of the operator's disk."""
    training = _table(site, "training")
    sources = _table(training, "l2t").get("sources")
    return [
        _table(site, "data"),
        _table(_table(training, "nettailor"), "backbone"),
        *(
            each
            for each in (sources if isinstance(sources, list) else ())
            if isinstance(each, dict)
        ),
    ]


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def resolve(
    config: FederationConfig,
    *,
    source: str,
    state: Path,
    coordinator_port: int,
    mlflow_uri: str,
    data: Path | None = None,
) -> Federation:
    """Fill in addresses and folders and check every configuration before anything starts.

    `source` is how errors name the file; each process gets a folder below `state`; `data` replaces
    every lab's data path.
    """
    address = f"127.0.0.1:{coordinator_port}"
    coordinator = merge(
        merge(UNATTENDED, _with_whole_paths(config.coordinator)),
        {
            "net": config.net,
            "state": str(state / "coordinator"),
            "server": {"listen": address},
            "history": {"mlflow_uri": mlflow_uri},
        },
    )
    sites = []
    for index, own in enumerate(config.sites):
        table = merge(config.site, own)
        table |= {"coordinator": address, "state": str(state / "sites" / str(own.get("site")))}
        if data is not None:
            table = merge(table, {"data": {"path": str(data)}})
        sites.append(check(table, SiteConfig, source=f"{source}: sites[{index}]"))
    names = [site.site for site in sites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"{source}: two labs are named {twice[0]!r}; names are unique")
    categories = [site.category for site in sites if not site.new_version]
    twice = sorted({name for name in categories if categories.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"{source}: two labs have category {twice[0]!r}, and the net takes it from one; name "
            "the other's otherwise"
        )
    if taken := OTHERS.intersection(names):
        raise ConfigurationError(
            f"{source}: a lab is named {min(taken)!r}, as another process of the federation is; "
            "give it another name"
        )
    return Federation(
        coordinator=check(coordinator, CoordinatorConfig, source=f"{source}: coordinator"),
        sites=tuple(sites),
    )


def _with_whole_paths(coordinator: dict[str, Any]) -> dict[str, Any]:
    """Return coordinator.toml's tables with paths that hold in another current folder, too."""
    whole = dict(coordinator)
    artifacts, database = whole.get("artifacts"), whole.get("database")
    if isinstance(artifacts, str) and "://" not in artifacts:
        whole["artifacts"] = str(Path(artifacts).absolute())
    if isinstance(database, str) and (file := re.fullmatch(r"sqlite:///([^/:].*)", database)):
        # The rest of an address as it was written, so nothing in it is escaped once more.
        whole["database"] = f"sqlite:///{Path(file[1]).absolute()}"
    samples = _table(whole, "samples")
    if isinstance(samples.get("folder"), str):
        whole["samples"] = samples | {"folder": str(Path(samples["folder"]).absolute())}
    return whole


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `over` laid on top, table by table."""
    merged = base | over
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            merged[key] = merge(base[key], over[key])
    return merged
