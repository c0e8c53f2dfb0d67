"""What every command shares: one BLAS thread, errors as sentences, Ctrl-C as a promise."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

import click

from ndt_offline.errors import NdtError, UsageError
from ndt_offline.storage.faults import redacted

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def one_thread() -> None:
    """BLAS and OpenMP read these when numpy and torch are loaded, so this comes first."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def run(command: Callable[..., object]) -> None:
    """Run a click command; exit codes as documented: 0, 1 error, 2 usage, 3 partly, 4 alert."""
    one_thread()
    with suppress(AttributeError):  # a terminal that lacks a character shows its number
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = command(standalone_mode=False, auto_envvar_prefix="NDT")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "\nstopped; what is finished is kept, the same command goes on from here", err=True
        )
        sys.exit(130)
    except NdtError as error:
        _tell(error)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        told = f"error: {error.filename or ''}: {error.strerror or error}"
        click.echo(redacted(told), err=True)
        sys.exit(1)
    except Exception as error:
        from ndt_offline.store.damage import damage_of

        damage = damage_of(error)
        if damage is None:
            raise
        _tell(damage)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: NdtError) -> None:
    """The sentence, without what names from a file could do to a terminal."""
    from ndt_offline.report.table import printable

    for line in redacted(f"error: {error}").split("\n"):
        click.echo(printable(line), err=True)
