"""The command line as operators' scripts know it: commands, parameters, types, defaults."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_type_hints

import typer

from rootstock.deploy.cli.commands import app

NAME = "command_line"


def present() -> Iterator[str]:
    """Yield every group, command and parameter, a line each, whatever the terminal makes of it."""
    yield from _command("rootstock", typer.main.get_command(app))


def _command(path: str, command: Any) -> Iterator[str]:
    yield f"{path}: {_first_line(command.help)}"
    hints = {} if command.callback is None else get_type_hints(inspect.unwrap(command.callback))
    for parameter in command.params:
        yield f"{path} {_described(parameter, hints.get(parameter.name))}"
    for name, child in command.commands.items() if hasattr(command, "commands") else ():
        yield from _command(f"{path} {name}", child)


def _described(parameter: Any, hint: Any) -> str:
    option = parameter.param_type_name == "option"
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    kind = hint.__name__ if isinstance(hint, type) else str(hint)
    bounds = [getattr(parameter, side, None) for side in ("min", "max")]
    within = "" if bounds == [None, None] else f" from {bounds[0]} to {bounds[1]}"
    given = parameter.default
    if callable(given):  # what it gives depends on the machine, what is said of it does not
        given = getattr(parameter, "show_default", given)
    default = "required" if parameter.required else f"default {given}"
    return (
        f"{names if option else names.upper()} ({kind}{within}, {default}): "
        f"{_first_line(parameter.help)}"
    )


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
