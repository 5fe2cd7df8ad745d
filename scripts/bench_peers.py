#!/usr/bin/env python3
"""llamaspec against llama.cpp's own programs: the same pair, prompt tokens, settings and machine, greedy.

    plain                      llamaspec run --no-spec
    llamaspec                  llamaspec run
    llama-speculative-simple   llama.cpp's example of speculative decoding
    llama-server               llama.cpp's server with a draft model, started once, idle while others run
    llama-bench                llama.cpp without speculation, to see that our own plain decoding is not slow

Rounds are interleaved and the order rotates, so that a machine which gets slower hits all alike; one
program runs at a time. Speeds are generation alone, each as `peer_runs` describes. Ratios are medians over
the rounds of ratios within a round. A text is the same as plain's as far as both go: programs stop at
different places within a last draft.

Usage: scripts/bench_peers.py --set A --prompt code --draft-max 16 --p-min 0.75 -n 160 --rounds 3
       scripts/bench_peers.py -m MAIN.gguf -md DRAFT.gguf --prompt FILE --json result.json
"""

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from peer_build import peer_programs
from peer_runs import (
    Run,
    RunFailed,
    parse_bench,
    parse_llamaspec,
    parse_server,
    parse_speculative_simple,
    run_program,
    serving,
)
from reference_sets import Pair, add_pair_arguments, check_pair_arguments, chosen_pair
from rich.console import Console
from rich.table import Table

from llamaspec.errors import LlamaspecError
from llamaspec.gguf.facts import describe
from llamaspec.gguf.shards import read_model
from llamaspec.native.api import binding_version
from llamaspec.native.devices import physical_cores
from llamaspec.templates import CHATML, TemplateRenderer

PLAIN, OURS, SIMPLE, SERVER, BENCH = PROGRAMS = (
    "plain",
    "llamaspec",
    "llama-speculative-simple",
    "llama-server",
    "llama-bench",
)
PROMPTS = {
    "code": "Write a Python class for a binary search tree with insert, delete, search and in-order "
    "traversal. Use type hints and docstrings.",
    "chat": "I may move to another country for a new job. What should I think about before I decide, "
    "and what do people regret most often?",
}

Runner = Callable[[], Run]


def chat_prompt(main: Path, message: str) -> str:
    """`message` in the main model's chat format. Without BOS text: every program adds that by itself."""
    template = describe(read_model(main)).chat_template or CHATML
    with TemplateRenderer(template) as renderer:
        return renderer.render([{"role": "user", "content": message}])


def commands(
    pair: Pair, prompt: Path, peers: Mapping[str, Path], options: argparse.Namespace
) -> dict[str, list[str]]:
    """What is started for each program of `options.programs`."""
    main, draft = ["-m", str(pair.main)], ["-md", str(pair.draft)]
    threads = ["-t", str(options.threads)]
    layers = ["-ngl", options.gpu_layers] if options.gpu_layers else []
    draft_layers = ["-ngld", options.gpu_layers_draft] if options.gpu_layers_draft else []
    common = [
        "-c",
        str(options.ctx_size),
        "-n",
        str(options.n_predict),
        *threads,
        "-tb",
        str(options.threads),
    ]
    greedy = ["--temp", "0"]
    ours = [sys.executable, "-m", "llamaspec", "run", *main, "-f", str(prompt), "--raw", "--json", "--quiet"]
    ours += [*common, *greedy, *layers]
    drafting = [
        "--spec",
        "fixed",
        "--drafters",
        "model",
        "--draft-max",
        str(options.draft_max),
        "--draft-min",
        "0",
        "--draft-p-min",
        str(options.p_min),
    ]
    theirs = [*main, *draft, *common, *greedy, *layers, *draft_layers, "--spec-type", "draft-simple"]
    theirs += ["--spec-draft-n-max", str(options.draft_max), "--spec-draft-n-min", "0"]
    theirs += ["--spec-draft-p-min", str(options.p_min)]
    plain_test = ["-p", "0", "-n", str(options.n_predict), "-r", "1", "-o", "json"]
    every = {
        PLAIN: [*ours, "--no-spec"],
        OURS: [*ours, *draft, *draft_layers, *drafting],
        SIMPLE: [str(peers[SIMPLE]), *theirs, "-bf", str(prompt), "--no-escape", "--log-colors", "off"],
        SERVER: [str(peers[SERVER]), *theirs, "-np", "1", "--cache-ram", "0", "--ctx-checkpoints", "0"],
        BENCH: [str(peers[BENCH]), *main, *threads, *layers, *plain_test],
    }
    return {program: every[program] for program in options.programs}


def runners(
    command: Mapping[str, Sequence[str]], prompt: str, n_predict: int, stack: contextlib.ExitStack
) -> dict[str, Runner]:
    """One measured run of each program. A server is started now and ended with `stack`."""
    every: dict[str, Runner] = {
        PLAIN: lambda: parse_llamaspec(run_program(command[PLAIN])[0]),
        OURS: lambda: parse_llamaspec(run_program(command[OURS])[0]),
        SIMPLE: lambda: parse_speculative_simple(*run_program(command[SIMPLE]), prompt),
        BENCH: lambda: parse_bench(run_program(command[BENCH])[0]),
    }
    if SERVER in command:
        complete = stack.enter_context(serving(command[SERVER]))
        request = {"prompt": prompt, "n_predict": n_predict, "temperature": 0.0, "cache_prompt": False}
        every[SERVER] = lambda: parse_server(complete(request))
    return {program: every[program] for program in command}


def measure(run: Mapping[str, Runner], rounds: int) -> dict[str, list[Run]]:
    """`rounds` runs of each program, one at a time, each round beginning with the next program."""
    order, runs = list(run), {program: list[Run]() for program in run}
    for number in range(rounds):
        start = number % len(order)
        for program in order[start:] + order[:start]:
            runs[program].append(run[program]())
            speed = runs[program][-1].speed
            print(
                f"round {number + 1}/{rounds}  {program:25}{speed:8.2f} tokens/s", file=sys.stderr, flush=True
            )
        check_prompts(runs)
    return runs


def check_prompts(runs: Mapping[str, Sequence[Run]]) -> None:
    """Raises RunFailed where programs did not read the same number of prompt tokens."""
    lengths = {
        program: run.prompt_tokens for program, (run, *_) in runs.items() if run.prompt_tokens is not None
    }
    if len(set(lengths.values())) > 1:
        raise RunFailed(f"The programs did not read the same prompt; its tokens are {lengths}.")


def same_text(one: Run, other: Run, n_predict: int) -> bool | None:
    """Whether the texts agree as far as both go; one that ended by itself has to be all of the other.

    None where a program shows no text.
    """
    if one.text is None or other.text is None:
        return None
    # The limit may cut a character in two, and programs set the end of a text off by empty lines.
    shorter, longer = sorted(((run.text or "").rstrip("\ufffd\n"), run.tokens) for run in (one, other))
    ended = shorter[1] < n_predict
    return shorter[0] == longer[0] if ended else longer[0].startswith(shorter[0])


def ratio(of: Sequence[Run], to: Sequence[Run]) -> float:
    """Median over the rounds of how many times faster `of` was than `to` in that round."""
    return median(a.speed / b.speed for a, b in zip(of, to, strict=True))


def prompt_times(runs: Sequence[Run]) -> list[float]:
    return [run.prompt_seconds for run in runs if run.prompt_seconds is not None]


def summary(runs: Mapping[str, Sequence[Run]], n_predict: int) -> list[dict[str, object]]:
    """A row for each program; ratios to programs that were not run are None."""
    plain, ours = runs.get(PLAIN), runs.get(OURS)
    return [
        {
            "program": program,
            "tokens_per_second": median(run.speed for run in done),
            "slowest": min(run.speed for run in done),
            "fastest": max(run.speed for run in done),
            "to_plain": ratio(done, plain) if plain else None,
            "llamaspec_to_it": ratio(ours, done) if ours else None,
            "prompt_seconds": median(times) if (times := prompt_times(done)) else None,
            "drafted": done[0].drafted,
            "accepted": done[0].accepted,
            "same_text_as_plain": same_text(done[0], plain[0], n_predict) if plain else None,
        }
        for program, done in runs.items()
    ]


def print_table(rows: Sequence[Mapping[str, object]], title: str) -> None:
    table = Table(title=title)
    table.add_column("program")
    for name in (
        "tokens/s",
        "min-max",
        "to plain",
        "llamaspec to it",
        "prompt s",
        "drafted",
        "accepted",
        "same text",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row["program"]),
            _shown(row["tokens_per_second"]),
            f"{_shown(row['slowest'])}-{_shown(row['fastest'])}",
            *(_shown(row[key]) for key in ("to_plain", "llamaspec_to_it", "prompt_seconds")),
            *(_shown(row[key]) for key in ("drafted", "accepted", "same_text_as_plain")),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(table)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare llamaspec with llama.cpp's own programs.")
    add_pair_arguments(parser)
    parser.add_argument(
        "--prompt", default="code", metavar="code|chat|FILE", help="a message, not yet formatted"
    )
    parser.add_argument("--draft-max", type=int, default=16)
    parser.add_argument("--p-min", type=float, default=0.75)
    parser.add_argument("-n", "--n-predict", type=int, default=160)
    parser.add_argument("-c", "--ctx-size", type=int, default=4096)
    parser.add_argument("-t", "--threads", type=int, default=physical_cores())
    parser.add_argument("-ngl", "--gpu-layers", metavar="auto|all|N", help="default: each program's own")
    parser.add_argument("-ngld", "--gpu-layers-draft", metavar="auto|all|N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--peers", type=Path, help="folder with llama.cpp's programs, in place of a build")
    parser.add_argument("--json", type=Path, help="write commands, runs and summary to this file")
    options = parser.parse_args()
    check_pair_arguments(parser, options)
    if options.rounds < 1 or options.n_predict < 2:
        parser.error("at least one round and two tokens are needed")
    return options


def bench(options: argparse.Namespace) -> None:
    peers = peer_programs(options.peers)
    pair = chosen_pair(options)
    message = PROMPTS.get(options.prompt) or Path(options.prompt).read_text(encoding="utf-8")
    prompt = chat_prompt(pair.main, message)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "prompt.txt"
        file.write_bytes(prompt.encode())
        command = commands(pair, file, peers, options)
        for line in command.values():
            print(f"$ {shlex.join(line)}", file=sys.stderr)
        runs = measure(runners(command, prompt, options.n_predict, stack), options.rounds)
    rows = summary(runs, options.n_predict)
    print_table(
        rows, f"{pair.main.name} + {pair.draft.name}, {options.prompt}, {options.n_predict} tokens, greedy"
    )
    if options.json:
        recorded = {program: [asdict(run) for run in done] for program, done in runs.items()}
        result = {"binding": binding_version(), "commands": command, "summary": rows, "runs": recorded}
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")


def main() -> int:
    try:
        bench(parse_arguments())
    except LlamaspecError as error:
        print(f"{error.message} {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    except (RunFailed, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
