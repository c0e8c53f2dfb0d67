"""`ndt-offline COMMAND`: everything beside the analysis itself."""

from __future__ import annotations

from importlib import import_module

import click

from ndt_offline import __version__
from ndt_offline.cli.command import SETTINGS, run

# Each is a module of this folder that holds a `command`; `import` is no name for a module.
COMMANDS = (
    "baseline",
    "compare",
    "export",
    "figures",
    "import",
    "inspect",
    "pack",
    "prune",
    "sampling",
    "similarity",
    "validate",
    "verify",
)


class Lazy(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = "importing" if name == "import" else name
        found: click.Command = import_module(f"ndt_offline.cli.{module}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from ndt_offline.errors import nearest

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"no command {args[0]!r}; try {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Lazy, context_settings=SETTINGS)
@click.version_option(__version__, "-V", "--version")
def command() -> None:
    """Look into recorded runs and their analyses. `ndt-analyze` does the analysis."""


def main() -> None:
    run(command)
