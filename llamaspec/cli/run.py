"""`llamaspec run`: answer one prompt, and say what speculation did."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from llamaspec.cli import options as o

EPILOG = """\
Examples:

llamaspec run "Write a quick sort in Python"

cat report.txt | llamaspec run "Summarise this" --temp 0

llamaspec run -m main.gguf -md draft.gguf --compare -f prompt.txt

llamaspec run "Where is the parser?" --corpus src --drafters model,ngram,corpus --explain
"""


@o.takes_settings
def run(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; standard input is added to it.")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Prompt from a file.")] = None,
    system: o.System = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is: no chat template.")] = False,
    profile: o.Profile = None,
    model: o.Model = None,
    model_draft: o.ModelDraft = None,
    draft_mismatch: o.DraftMismatch = "stop",
    grammar: o.Grammar = None,
    grammar_file: o.GrammarFile = None,
    json_schema: o.JsonSchema = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with the text of plain decoding (needs --temp 0).")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Answer plainly too, in turns, and tell the speedup.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every round: drafted by whom, accepted, rejected, why.")
    ] = False,
    color: Annotated[
        bool | None, typer.Option("--color/--no-color", help="Colour drafted tokens; default: on a terminal.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but the answer.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object in place of text.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="llama.cpp's log, and tracebacks.")
    ] = False,
) -> None:
    """Answer a prompt with a main model and, where there is one, a draft model."""
    from llamaspec.cli.answer import Wanted, answer
    from llamaspec.cli.loading import load
    from llamaspec.cli.prompt import constraint, read_prompt
    from llamaspec.errors import UsageError

    text = read_prompt(prompt, file, sys.stdin, raw=raw)
    if raw and system is not None:
        raise UsageError(
            "--raw leaves no place for a system prompt.", "Drop --raw, or write it into the text."
        )
    if quiet and (compare or explain) and not json_output:
        raise UsageError(
            "With --quiet there is nothing to see of --compare and --explain.", "Drop it, or add --json."
        )
    gbnf = constraint(grammar, grammar_file, json_schema)
    with load(context, quiet=quiet, verbose=verbose) as llm:
        if verify and not llm.profile.sampling.greedy:
            raise UsageError(
                "--verify compares greedy texts, and sampled ones differ by chance.", "Add --temp 0."
            )
        if compare and not llm.loaded.drafters:
            raise UsageError("--compare has nothing to compare: nothing can be drafted here.", "Drop it.")
        wanted = Wanted(verify, compare, explain, color, quiet, json_output)
        if not answer(llm, text if raw else llm.render(text), gbnf, wanted):
            raise typer.Exit(130)
