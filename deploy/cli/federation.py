"""``rootstock demo`` and ``rootstock up``: a whole federation on this machine."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.common.errors import ConflictError
from rootstock.deploy.cli.options import AsJson
from rootstock.deploy.output import PEOPLE, listed, print_result

if TYPE_CHECKING:
    from rootstock.deploy.federation.processes import Processes
    from rootstock.deploy.federation.run import Outcome

MARKER = "federation.json"
"""A federation's folder has this file: `up` may resume it, `demo` may replace it."""

KeepUi = Annotated[bool, typer.Option("--keep-ui", help="Leave MLflow's UI on until Ctrl-C.")]


def demo(
    as_json: AsJson = False,
    keep_ui: KeepUi = False,
    state: Annotated[Path, typer.Option(help="Folder for everything that the demo leaves.")] = Path(
        ".rootstock/demo"
    ),
) -> None:
    """Five labs, five digits, one net: the main job on real data, in a few minutes.

    Starts afresh each time; an earlier demo's folder is replaced.
    """
    _remove_earlier(state)
    with demo_file() as file:
        _run(file, state, data=None, sites=(), as_json=as_json, keep_ui=keep_ui)


def demo_file() -> AbstractContextManager[Path]:
    """Return the FEDERATION.toml of the demo, wherever the package is installed."""
    return as_file(files("rootstock.deploy") / "examples" / "digits.toml")


def up(
    file: Annotated[Path, typer.Argument(help="FEDERATION.toml")],
    as_json: AsJson = False,
    keep_ui: KeepUi = False,
    state: Annotated[
        Path | None, typer.Option(help="Folder of the federation; default .rootstock/NET.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Replaces the labs' data path.")] = None,
    sites: Annotated[str, typer.Option(help="Of these labs alone; with commas.")] = "",
) -> None:
    """Run the federation that a file describes: coordinator, MLflow and a site agent per lab.

    Everything is durable: run again, it carries on where it stopped, be it with more labs.
    """
    _run(file, state, data=data, sites=listed(sites), as_json=as_json, keep_ui=keep_ui)


def _run(
    file: Path,
    state: Path | None,
    *,
    data: Path | None,
    sites: tuple[str, ...],
    as_json: bool,
    keep_ui: bool,
) -> None:
    from rootstock.deploy.federation.config import read, resolve
    from rootstock.deploy.federation.processes import free_ports, interrupt_on_signals
    from rootstock.deploy.federation.progress import BarDisplay, Display
    from rootstock.deploy.federation.run import run_federation
    from rootstock.deploy.federation.tables import category_tables

    config = read(file)
    folder = (state or Path(".rootstock") / config.net).resolve()
    coordinator_port, mlflow_port = free_ports(2)
    federation = resolve(
        config,
        source=str(file),
        state=folder,
        coordinator_port=coordinator_port,
        mlflow_uri=f"http://127.0.0.1:{mlflow_port}",
        data=data.resolve() if data else None,
    )
    if sites:
        federation = federation.only(sites)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(federation.model_dump_json(indent=2), encoding="utf-8")

    def after(outcome: Outcome, processes: Processes) -> None:
        result = outcome.as_json(folder)
        places = [f"{name:<12} {place}" for name, place in result["places"].items()]
        print_result(result, *category_tables(outcome.categories), *places, as_json=as_json)
        if keep_ui:
            processes.stop([site.site for site in federation.sites] + ["coordinator"])
            PEOPLE.print(f"MLflow's UI is at {outcome.mlflow_uri}; Ctrl-C stops it.")
            with suppress(KeyboardInterrupt):
                processes.wait()

    interrupt_on_signals()
    PEOPLE.print(
        f"Net {config.net}: {len(federation.sites)} labs, a coordinator and MLflow, "
        f"each a process of its own; logs in {folder / 'logs'}",
        soft_wrap=True,
    )
    display = (BarDisplay if PEOPLE.is_terminal else Display)(federation, PEOPLE)
    try:
        run_federation(federation, folder, mlflow_port, display, after=after)
    finally:
        display.close()


def _remove_earlier(state: Path) -> None:
    if not state.exists():
        return
    if any(state.iterdir()) and not (state / MARKER).exists():
        raise ConflictError(
            f"{state} exists and is not an earlier demo's folder (no {MARKER} in it); "
            "name another with --state"
        )
    shutil.rmtree(state)
