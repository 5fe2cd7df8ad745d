"""`llamaspec run`: answer one prompt, and say what speculation did."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamaspec.cli import options as o

if TYPE_CHECKING:
    from llamaspec.session import Session

EPILOG = """\
Examples:

llamaspec run "Write a quick sort in Python"

cat report.txt | llamaspec run "Summarise this" --temp 0

llamaspec run -m main.gguf -md draft.gguf --draft-max 8 -f prompt.txt --json
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
    no_spec: o.NoSpec = False,
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
        bool, typer.Option("--verify", help="Replay without speculation and compare (needs --temp 0).")
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
    from llamaspec.cli.prompt import constraint, read_prompt
    from llamaspec.console.notices import show_notices
    from llamaspec.console.progress import DownloadProgress
    from llamaspec.native import api

    text = read_prompt(prompt, file, sys.stdin, raw=raw)
    if raw and system is not None:
        from llamaspec.errors import UsageError

        raise UsageError(
            "--raw leaves no place for a system prompt.", "Drop --raw, or write it into the text."
        )
    gbnf = constraint(grammar, grammar_file, json_schema)
    settings = o.overrides(context.params)
    if no_spec:
        settings["speculation"] = {"mode": "off"}
    api.verbose(verbose)
    show_notices(quiet=quiet)
    if "profile" in (given := _given(context)):  # which wins over models from the environment
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
            from llamaspec.errors import UsageError

            raise UsageError(
                "--verify compares greedy texts, and sampled ones differ by chance.", "Add --temp 0."
            )
        _answer(llm, text if raw else llm.render(text), gbnf, color, quiet, json_output, verify)


def _given(context: typer.Context) -> set[str]:
    """Parameters that were given as flags, not by the environment."""
    return {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }


def _answer(
    llm: "Session",
    prompt: str,
    gbnf: str | None,
    color: bool | None,
    quiet: bool,
    as_json: bool,
    verify: bool,
) -> None:
    import json

    from llamaspec.cli.interrupt import Interrupt
    from llamaspec.console.answer import AnswerPrinter
    from llamaspec.console.panel import print_stats
    from llamaspec.events import FinishReason

    request = llm.request(prompt, grammar=gbnf)
    printer = AnswerPrinter(color)
    with Interrupt() as interrupt:
        parts: list[str] = []
        tokens: list[int] = []
        for event in llm.generate(request, interrupt):
            parts.append(event.text)
            tokens += event.tokens
            if not as_json:
                printer.write(event)
        if not as_json:
            printer.end()
        stats, reason = llm.stats, llm.finish_reason or FinishReason.CANCELLED
        comparison = None
        if verify and not interrupt():
            comparison = _compare(llm, prompt, gbnf, tokens, interrupt)
    if as_json:
        print(json.dumps(_as_json(llm, "".join(parts), reason, stats, comparison), ensure_ascii=False))
    elif not quiet:
        print_stats(stats, reason, comparison)
    if interrupt():
        raise typer.Exit(130)


def _compare(
    llm: "Session", prompt: str, gbnf: str | None, tokens: list[int], should_stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Replay plainly; whether the texts are the same and, if not, where and how nearly they part."""
    from dataclasses import asdict

    request = llm.request(prompt, grammar=gbnf, settings={"speculation": {"mode": "off"}})
    plain = [token for event in llm.generate(request, should_stop) for token in event.tokens]
    if should_stop():
        return None
    divergence = llm.first_divergence(request.prompt, tokens, plain)
    return {
        "same": tokens == plain,
        "first_divergence": asdict(divergence) if divergence else None,
        "plain": llm.stats.as_dict(),
    }


def _as_json(
    llm: "Session", text: str, reason: str, stats: Any, comparison: dict[str, Any] | None
) -> dict[str, Any]:
    answer = {
        "text": text,
        "finish_reason": reason,
        "usage": {"prompt_tokens": stats.prompt_tokens, "completion_tokens": stats.predicted_tokens},
        "settings": llm.settings(),
        "models": llm.models(),
        "stats": stats.as_dict(),
    }
    return answer if comparison is None else {**answer, "verify": comparison}
