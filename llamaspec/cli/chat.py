"""`llamaspec chat`: a conversation in the terminal."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llamaspec.cli import completion
from llamaspec.cli import options as o

if TYPE_CHECKING:
    from llamaspec.cli.conversing import Conversing, Reader
    from llamaspec.session import Session

EPILOG = """\
Examples:

llamaspec chat

llamaspec chat -c

llamaspec chat -m main.gguf -md draft.gguf --ctx-size 16384 --temp 0.2

printf 'Name a river.\\nWhere is it?\\n' | llamaspec chat --no-save
"""


@o.takes_settings
def chat(
    context: typer.Context,
    continue_: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the conversation that was the last.")
    ] = False,
    load: Annotated[
        str | None,
        typer.Option(
            "--load",
            autocompletion=completion.conversations,
            help="Go on with the conversation of this name.",
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the conversations that are kept, and exit.")
    ] = False,
    no_save: Annotated[bool, typer.Option("--no-save", help="Keep nothing of this on the disk.")] = False,
    system: o.System = None,
    profile: o.Profile = None,
    model: o.Model = None,
    model_draft: o.ModelDraft = None,
    draft_mismatch: o.DraftMismatch = "stop",
    ctx_size: o.LongCtxSize = None,
    markdown: Annotated[
        bool | None, typer.Option("--markdown/--no-markdown", help="Draw Markdown; default: on a terminal.")
    ] = None,
    color: Annotated[
        bool | None, typer.Option("--color/--no-color", help="Colour drafted tokens; default: on a terminal.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but answers and replies.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="llama.cpp's log, and tracebacks.")
    ] = False,
) -> None:
    """Talk with a model: a conversation that is kept, from turn to turn and from start to start.

    /help lists what can be done in it. Lines from a pipe are a message each.
    """
    from llamaspec.chat.library import Library
    from llamaspec.cli import report
    from llamaspec.cli.conversing import Conversing, Stopped, kept_rows
    from llamaspec.cli.loading import load as load_session
    from llamaspec.console.chat import Screen
    from llamaspec.errors import UsageError

    library = Library()
    if list_:
        for row in kept_rows(library):
            typer.echo("  ".join(row))
        typer.echo(f"They are in {library.folder}.", err=True)
        return
    if continue_ and load is not None:
        raise UsageError("--continue and --load name two conversations.", "Drop one of them.")
    kept = library.list() if continue_ else []
    if continue_ and not kept:
        raise UsageError("There is no conversation to go on with.", "Start one: llamaspec chat")
    name = kept[0].name if continue_ else load
    conversation = None if name is None else library.read(name)
    if not no_save:
        library.prepare()
    if conversation is not None and system is not None:
        conversation = conversation.with_system(system)

    def open_session(other: str | None) -> "Session":
        return load_session(context, quiet=quiet, verbose=verbose, parallel=1, profile=other)

    interactive = sys.stdin is not None and sys.stdin.isatty()
    with Conversing(
        open_session,
        conversation,
        name,
        library,
        Screen(color=color, markdown=markdown, quiet=quiet),
        keep=not no_save,
        interactive=interactive,
        on_error=report,
    ) as conversing:
        try:
            conversing.run(_reader(conversing, interactive=interactive, keep=not no_save))
        except Stopped:
            raise typer.Exit(130) from None


def _reader(conversing: "Conversing", *, interactive: bool, keep: bool) -> "Reader":
    from llamaspec.chat.commands import END_OF_BLOCK, FORMS
    from llamaspec.chat.library import history_file, open_private
    from llamaspec.cli.conversing import HOW_TO_LEAVE
    from llamaspec.console.chat_input import PipeInput, TerminalInput

    if not interactive:
        return PipeInput(sys.stdin.buffer, END_OF_BLOCK)
    history: Path | None = history_file() if keep else None
    if history is not None:
        try:
            history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(history, "ab", opener=open_private):
                pass
        except OSError:
            history = None
    return TerminalInput(
        {form.name: form.does for form in FORMS.values()},
        conversing.choices(),
        END_OF_BLOCK,
        history=history,
        on_interrupt=lambda: typer.echo(HOW_TO_LEAVE, err=True),
    )
