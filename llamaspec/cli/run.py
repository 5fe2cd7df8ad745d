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
    mode: o.Spec = None,
    no_spec: o.NoSpec = False,
    drafters: o.Drafters = None,
    corpus: o.Corpus = None,
    draft_max: o.DraftMax = None,
    draft_min: o.DraftMin = None,
    p_min: o.PMin = None,
    ctx_size: o.CtxSize = None,
    ctx_size_draft: o.CtxSizeDraft = None,
    gpu_layers: o.GpuLayers = None,
    gpu_layers_draft: o.GpuLayersDraft = None,
    device: o.Device = None,
    threads: o.Threads = None,
    threads_batch: o.ThreadsBatch = None,
    flash_attn: o.FlashAttn = None,
    cache_type_k: o.CacheTypeK = None,
    cache_type_v: o.CacheTypeV = None,
    batch_size: o.BatchSize = None,
    ubatch_size: o.UbatchSize = None,
    n_predict: o.NPredict = None,
    temperature: o.Temperature = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    repeat_penalty: o.RepeatPenalty = None,
    repeat_last_n: o.RepeatLastN = None,
    presence_penalty: o.PresencePenalty = None,
    frequency_penalty: o.FrequencyPenalty = None,
    seed: o.Seed = None,
    ignore_eos: o.IgnoreEos = None,
    stop: o.Stop = None,
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
    from llamaspec import session
    from llamaspec.cli.answer import Wanted, answer
    from llamaspec.cli.prompt import constraint, read_prompt
    from llamaspec.console.notices import show_notices
    from llamaspec.console.progress import DownloadProgress
    from llamaspec.errors import UsageError
    from llamaspec.native import api

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
    given = o.given(context)
    settings = o.overrides(context.params) | {"speculation": o.speculation(context.params, given)}
    api.verbose(verbose)
    show_notices(quiet=quiet)
    if "profile" in given:  # which wins over models from the environment
        model = model if "model" in given else None
        model_draft = model_draft if "model_draft" in given else None
    # Ends before the answer begins: both draw on the terminal.
    with DownloadProgress(quiet) as progress:
        llm = session.load(
            profile,
            main=model,
            draft=model_draft,
            settings=settings,
            draft_mismatch=draft_mismatch,
            progress=progress,
        )
    with llm:
        if verify and not llm.profile.sampling.greedy:
            raise UsageError(
                "--verify compares greedy texts, and sampled ones differ by chance.", "Add --temp 0."
            )
        if compare and not llm.loaded.drafters:
            raise UsageError("--compare has nothing to compare: nothing can be drafted here.", "Drop it.")
        wanted = Wanted(verify, compare, explain, color, quiet, json_output)
        if not answer(llm, text if raw else llm.render(text), gbnf, wanted):
            raise typer.Exit(130)
