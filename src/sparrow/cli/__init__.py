"""The command line: parse arguments, call the library, print; heavy imports wait for a command."""

from __future__ import annotations

import gc
import io
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sparrow import __version__
from sparrow.cli import (
    bench,
    blame,
    build,
    check,
    diff,
    doctor,
    fits,
    package,
    plan,
    profile,
    quantize,
    reduce,
    report,
    run,
    targets,
    tuning,
    verify,
)
from sparrow.cli.options import progress
from sparrow.errors import SparrowError, printable

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A trained network in, one small, fast, proved artifact out.",
)

# What shells call a command that Ctrl-C ended.
INTERRUPTED = 130
# In the order of `sparrow --help`.
COMMANDS = (
    build.build,
    plan.plan,
    check.check,
    fits.fits,
    run.run,
    verify.verify,
    package.package,
    profile.profile,
    bench.bench,
    quantize.quantize,
    blame.blame,
    diff.diff,
    reduce.reduce,
    targets.targets,
    tuning.tuning,
    doctor.doctor,
    report.report,
)
for _command in COMMANDS:
    app.command()(_command)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"sparrow {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def _saved_traceback() -> str:
    """Write the current traceback to a file and return its path."""
    from sparrow.device.cache import cache_folder

    text = traceback.format_exc()
    for known in (cache_folder() / "crashes", None):
        try:
            # to ask for the temporary folder is to write to it
            folder = known or Path(tempfile.gettempdir())
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(".txt", "sparrow-", folder)
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as f:
                f.write(f"{' '.join(sys.argv)}\n{text}")
        except OSError:
            continue
        return name
    return "nowhere: no folder can be written"


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in our code that gives it."""
    progress.clear()
    print(f"note: {printable(str(message))}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``sparrow`` command; exits with 0, 1, 2, 3 or 130."""
    for stream in (sys.stdout, sys.stderr):
        # names of a model that a terminal or file of another encoding cannot hold
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # A command lives for seconds and its values are acyclic: collecting every 700 objects is waste.
    gc.set_threshold(50_000)
    with warnings.catch_warnings():
        warnings.showwarning = _note
        code = run_command(lambda: app(words, prog_name="sparrow", standalone_mode=False))
    sys.exit(code)


def run_command(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code; errors are one line on stderr."""
    try:
        code = command()
        if code == INTERRUPTED:  # typer keeps the exception to itself
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SparrowError as e:
        progress.clear()
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except (KeyboardInterrupt, typer.Abort):
        progress.clear()
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of our output left; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as e:  # the last line of defence: nobody else turns a bug into one line
        progress.clear()
        explain = getattr(e, "format_message", None)
        if explain is not None:  # wrong use of the command line
            print(f"error: {printable(' '.join(explain().split()))}", file=sys.stderr)
            return 2
        where = _saved_traceback()
        what = printable(f"{type(e).__name__}: {' '.join(str(e).split())}")[:300]
        print(f"error: internal error: {what}; traceback: {where}", file=sys.stderr)
        return 3
