"""`llamaspec profile add URL|REPO|FILE`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from llamaspec.cli.profile.parameters import Force, Yes, confirm

if TYPE_CHECKING:
    from llamaspec.profiles import Profile
    from llamaspec.profiles.adding import Download

EPILOG = """\
Examples:

llamaspec profile add https://example.org/pair.yaml

llamaspec profile add owner/repo/pair.yaml --name theirs

llamaspec profile add pair.yaml --yes
"""


def add_command(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="URL|REPO|FILE",
            help="An https:// address, owner/repo/file.yaml[@revision] on the hub, or a file.",
            show_default=False,
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="Keep it under this name.")] = None,
    yes: Yes = False,
    force: Force = False,
) -> None:
    """Take over somebody's profile: see what it would download and set, and keep it if you agree.

    It is kept with a line that says where it came from. As long as that stands, it can't name files of this
    machine. Prints where it is.
    """
    from llamaspec.errors import UsageError
    from llamaspec.profiles.adding import downloads, find_foreign
    from llamaspec.profiles.storing import hides_shipped, place_of, write_profile

    profile = find_foreign(reference, name)
    path = place_of(profile.name)
    if path.exists() and not force:
        raise UsageError(
            f"You have a profile {profile.name} already.",
            "Add this one under another name with --name, or in its place with --force.",
        )
    for line in _told(profile, downloads(profile)):
        typer.echo(line, err=True)
    if path.exists():
        typer.echo(f"It would take the place of {path}.", err=True)
    if hides_shipped(profile.name):
        typer.echo(f"It would hide the shipped profile {profile.name}.", err=True)
    if not yes:
        confirm("Add it?")
    write_profile(profile, path, overwrite=force)
    typer.echo(path)


def _told(profile: "Profile", models: "list[Download]") -> Iterator[str]:
    from llamaspec.console.tables import human_bytes
    from llamaspec.profiles.adding import settings_of
    from llamaspec.profiles.document import printable, shown

    yield f"{profile.name}: {profile.description}".rstrip(": ")
    yield f"  from      {profile.origin}"
    if profile.license:
        yield f"  licence   {profile.license} (so it says)"
    for model in models:
        size = human_bytes(model.size) if model.size else "of unknown size"
        state = "here already" if model.here else "to be fetched when it is first used"
        yield f"  {model.role:<9} {size}, {state}"
        for place in model.places:
            yield f"            {place}"
        yield f"            licence: {model.licence or 'not known'}" + (
            "" if model.checked else "; no SHA-256 is given: the hub's word is taken"
        )
        if model.trouble:
            yield f"            {model.trouble}"
    if len(missing := [model.size for model in models if not model.here]) > 1 and all(missing):
        yield f"  in all    {human_bytes(sum(size or 0 for size in missing))} to be fetched"
    settings = list(settings_of(profile))
    yield "  settings  " + ("as by default" if not settings else "")
    for key, value in settings:
        text = str(value)
        rest = f" ({len(text):,} characters)" if shown(text) != printable(text) else ""
        yield f"            {key}: {shown(text)}{rest}"
    yield "  none of them acts on this machine: no paths, hosts, ports or keys"
    if tuned := profile.provenance:
        yield f"  tuned     {tuned.date} on {tuned.machine.cpu}: {tuned.speedup} of plain decoding"
