"""`llamaspec doctor`: what is right and wrong with this installation and this machine."""

from pathlib import Path
from typing import Annotated

import typer

from llamaspec.cli import completion

EPILOG = """\
Examples:

llamaspec doctor

llamaspec doctor -v binding gpu

llamaspec doctor --json --offline python binding memory

llamaspec doctor --bundle report.zip

The checks: python, binding, gpu, memory, disk, folders, network, pair, speed.

It ends with exit code 1 where something is broken.
"""


def doctor(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=completion.checks,
            help="The checks to run; all without.",
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Details of everything; the pair's bytes are read, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE.zip",
            help="Write what a bug report needs: no names, paths, prompts or keys.",
            show_default=False,
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing of the network.")] = False,
) -> None:
    """Check this installation and this machine, and say what to do about what is amiss."""
    import json

    from llamaspec.console.doctor import DoctorView
    from llamaspec.console.progress import waiting
    from llamaspec.doctor.bundle import check_target, report, write_bundle
    from llamaspec.doctor.check import State, Visit, examine, worst
    from llamaspec.doctor.topics import choose

    checks = choose(names or ())
    if bundle is not None:
        check_target(bundle)
    visit = Visit(offline=offline, verbose=verbose, named=frozenset(names or ()))
    view = None if as_json else DoctorView(verbose=verbose)
    examined = []
    for check in checks:
        with waiting(f"{check.topic}…"):
            examined.append(examine(check, visit))
        if view:
            view.show(examined[-1])
    if view:
        view.conclude(examined)
    else:
        typer.echo(json.dumps(report(examined), indent=2))
    if bundle is not None:
        write_bundle(examined, visit, bundle)
        typer.echo(
            f"Wrote {bundle}: names, paths and keys are left out; look into it before you send it.", err=True
        )
    if worst(each.state for each in examined) is State.BROKEN:
        raise typer.Exit(1)
