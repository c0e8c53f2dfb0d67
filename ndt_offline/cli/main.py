"""`ndt-offline COMMAND`: everything beside the analysis itself."""

from __future__ import annotations

from importlib import import_module

import click

from ndt_offline import __version__
from ndt_offline.cli.command import SETTINGS, run

COMMANDS = {
    "inspect": "ndt_offline.cli.inspect",
    "pack": "ndt_offline.cli.pack",
    "prune": "ndt_offline.cli.prune",
    "verify": "ndt_offline.cli.verify",
}


class Lazy(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return import_module(COMMANDS[name]).command  # type: ignore[no-any-return]


@click.group(cls=Lazy, context_settings=SETTINGS)
@click.version_option(__version__, "-V", "--version")
def command() -> None:
    """Look into recorded runs and their analyses. `ndt-analyze` does the analysis."""


def main() -> None:
    run(command)
