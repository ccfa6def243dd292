"""``rootstock demo``, ``up`` and ``down``: a whole federation on this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.common.errors import AddressInUseError, ConflictError
from rootstock.deploy.cli.options import AsJson
from rootstock.deploy.output import PEOPLE, listed, note, print_result

if TYPE_CHECKING:
    from rootstock.deploy.federation.config import Federation, FederationConfig
    from rootstock.deploy.federation.folder import Maker
    from rootstock.deploy.federation.processes import Processes
    from rootstock.deploy.federation.run import Outcome

KeepUi = Annotated[bool, typer.Option("--keep-ui", help="Leave MLflow's UI on until Ctrl-C.")]


STATES = Path(".rootstock")
"""Holds the folders of federations that are given none."""

PORT_TRIES = 3
"""How often ports are chosen anew where another process was faster."""


def demo(
    as_json: AsJson = False,
    keep_ui: KeepUi = False,
    state: Annotated[
        Path, typer.Option(help="Folder for everything that the demo leaves, and for nothing else.")
    ] = STATES / "demo",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what an earlier demo left in the folder first.")
    ] = False,
) -> None:
    """Five labs, five digits, one net: the main job on real data, in a few minutes.

    Run again, it carries on where it stopped, or shows its result; --fresh starts over.
    """
    from rootstock.deploy.federation.folder import Maker

    with demo_file() as file:
        _Command(file, state, Maker.DEMO, as_json, keep_ui, fresh=fresh).run()


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
    from rootstock.deploy.federation.folder import Maker

    _Command(file, state, Maker.UP, as_json, keep_ui, data=data, sites=listed(sites)).run()


def down(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of the federation; default: the one that runs here."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stop the federation of `up` or `demo`, or what is left of one that was killed.

    Nothing is deleted; `up` carries on.
    """
    from rootstock.deploy.federation.down import runs_in, stop_federation
    from rootstock.deploy.federation.folder import state_folder

    if folder is None:
        places = [state_folder(each) for each in sorted(STATES.glob("*"))]
        running = [each for each in places if runs_in(each)]
        if len(running) > 1:
            raise ConflictError(
                f"{len(running)} federations run here: {', '.join(map(str, running))}; name one"
            )
        folders = running
    else:
        folders = [state_folder(folder)]
    stopped = [(each, process) for each in folders for process in stop_federation(each)]
    where = folder or STATES
    print_result(
        {
            "stopped": [
                {"state": str(each), "pid": process.pid, "command": process.command}
                for each, process in stopped
            ]
        },
        *(f"stopped: process {process.pid}, {process.command}" for _, process in stopped),
        *(() if stopped else (f"nothing of a federation runs in {where}",)),
        as_json=as_json,
    )


@dataclass(frozen=True)
class _Command:
    """The arguments of `demo` and `up`."""

    file: Path
    state: Path | None
    maker: Maker
    as_json: bool
    keep_ui: bool
    fresh: bool = False
    data: Path | None = None
    sites: tuple[str, ...] = ()

    def run(self) -> None:
        """Run the federation in its folder, which nobody else uses meanwhile."""
        from rootstock.deploy.federation.config import read
        from rootstock.deploy.federation.folder import (
            locked,
            remove_demo,
            require_own,
            state_folder,
        )
        from rootstock.deploy.federation.leftovers import stop_marked
        from rootstock.deploy.federation.processes import free_ports, interrupt_on_signals

        config = read(self.file)
        folder = state_folder(self.state or STATES / config.net)
        # A mistake in the file is found before the folder is touched.
        self._resolve(config, folder, free_ports(1)[0], "http://127.0.0.1")
        require_own(folder, self.maker)
        with locked(folder):
            require_own(folder, self.maker)  # nobody was faster
            interrupt_on_signals()
            for process in stop_marked(folder):
                note(f"stopped process {process.pid}, left by a killed run: {process.command}")
            if self.fresh:
                remove_demo(folder)
            for tries in range(1, PORT_TRIES + 1):
                try:
                    self._attempt(config, folder, *free_ports(2))
                    break
                except AddressInUseError as error:
                    if tries == PORT_TRIES:
                        raise
                    note(f"{error}\nAnother process took the port; other ports are tried")

    def _resolve(
        self, config: FederationConfig, folder: Path, coordinator_port: int, mlflow_uri: str
    ) -> Federation:
        from rootstock.deploy.federation.config import resolve

        federation = resolve(
            config,
            source=str(self.file),
            state=folder,
            coordinator_port=coordinator_port,
            mlflow_uri=mlflow_uri,
            data=self.data.resolve() if self.data else None,
        )
        return federation.only(self.sites) if self.sites else federation

    def _attempt(
        self, config: FederationConfig, folder: Path, coordinator_port: int, mlflow_port: int
    ) -> None:
        from rootstock.coordinator.history.server import signed_in
        from rootstock.deploy.federation.folder import write_marker
        from rootstock.deploy.federation.progress import BarDisplay, Display
        from rootstock.deploy.federation.run import run_federation, sign_in
        from rootstock.deploy.federation.tables import category_tables

        mlflow_uri = signed_in(mlflow_port, folder / "mlflow")
        federation = self._resolve(config, folder, coordinator_port, mlflow_uri)
        write_marker(folder, self.maker, federation.model_dump_json(indent=2))

        def after(outcome: Outcome, processes: Processes) -> None:
            result = outcome.as_json(folder)
            places = [f"{name:<12} {place}" for name, place in result["places"].items()]
            tables = category_tables(outcome.categories)
            print_result(result, *tables, *places, as_json=self.as_json)
            if self.keep_ui:
                processes.stop([site.site for site in federation.sites] + ["coordinator"])
                PEOPLE.print(
                    f"MLflow's UI is at {outcome.mlflow_uri}; Ctrl-C stops it.\n"
                    f"{sign_in(folder / 'mlflow')}",
                    soft_wrap=True,
                )
                with suppress(KeyboardInterrupt):
                    processes.wait()

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
