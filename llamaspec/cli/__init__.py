"""The command line: one small file per command, registered here; errors become exit codes here."""

import os
import sys
from typing import Annotated

import typer

from llamaspec.cli import (
    bench,
    chat,
    check,
    doctor,
    ls,
    pick,
    profile,
    pull,
    quantize,
    rm,
    run,
    serve,
    show,
    tune,
)
from llamaspec.errors import LlamaspecError

app = typer.Typer(
    name="llamaspec",
    help="Speculative decoding on your own machine: lossless, measured, one command.",
    epilog='Start with: llamaspec run "Write a quick sort in Python"',
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=run.EPILOG)(run.run)
app.command(epilog=serve.EPILOG)(serve.serve)
app.command(epilog=chat.EPILOG)(chat.chat)
app.command(epilog=pull.EPILOG)(pull.pull)
app.command(epilog=ls.EPILOG)(ls.ls)
app.command(epilog=show.EPILOG)(show.show)
app.command(epilog=rm.EPILOG)(rm.rm)
app.command(epilog=check.EPILOG)(check.check)
app.command(epilog=bench.EPILOG)(bench.bench)
app.command(epilog=tune.EPILOG)(tune.tune)
app.command(epilog=pick.EPILOG)(pick.pick)
app.command(epilog=doctor.EPILOG)(doctor.doctor)
app.command(epilog=quantize.EPILOG)(quantize.quantize)
app.add_typer(profile.app, name="profile")


def _version(wanted: bool) -> None:
    if wanted:
        from llamaspec import __version__

        typer.echo(f"llamaspec {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of `llamaspec`."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # A pipe is UTF-8 on every system; an old console may not hold every character.
            encoding = stream.encoding if stream.isatty() else "utf-8"
            getattr(stream, "reconfigure", lambda **_: None)(encoding=encoding, errors="replace")
    try:
        app()
    except LlamaspecError as error:
        sys.exit(report(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read us has gone: nothing is left to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        what = f": {error.filename}" if error.filename else ""
        sys.exit(report(LlamaspecError(f"The system refuses: {error.strerror or error}{what}.")))


def report(error: LlamaspecError) -> int:
    """Print an error to standard error; its exit code."""
    if {"-v", "--verbose"} & set(sys.argv[1:]):
        import traceback

        traceback.print_exception(error)
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text.assemble(("error: ", "bold red"), error.message))
    if error.hint:
        console.print(Text.assemble(("hint:  ", "bold"), error.hint))
    return error.exit_code
