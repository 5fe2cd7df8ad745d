#!/usr/bin/env python3
"""`llamaspec serve` against llama.cpp's llama-server, over HTTP: the same pair, slots and prompts, greedy.

    llamaspec:auto              llamaspec serve, drafting what pays
    llamaspec:fixed:MAX:PMIN    drafts of up to MAX tokens, ended where one is less probable than PMIN
    llamaspec:off               plain decoding
    llama-server:MAX:PMIN       llama-server with the draft model and the same two settings
    llama-server:plain          llama-server without a draft model

All servers stay loaded, and one at a time is busy. Rounds are interleaved and the order rotates, so that a
machine which gets slower hits all alike. The servers keep their defaults, caches too: a random first line
makes each prompt new to them, and is the same for all servers of a round.

Without --stall: 8 clients, then one, work through the prompts. Tokens per second are the tokens of all
answers by the time from the first request to the end of the last answer, reading and waiting included.
With --stall: a client streams a long answer, once undisturbed and once while another client's long prompt
is read; what is compared are the 95th percentiles of the gaps between the stream's tokens.

A ratio is a median over the rounds of ratios within a round, with the lowest and the highest. A round is
flagged where programs that are no part of this used the machine.

Usage: scripts/bench_server.py --set A --subjects llamaspec:auto llama-server:8:0.5 llama-server:plain
       scripts/bench_server.py --set C --subjects llamaspec:auto llamaspec:off --clients 8 --rounds 5
       scripts/bench_server.py -m MAIN.gguf -md DRAFT.gguf --peers-dir FOLDER --stall --json result.json
"""

import argparse
import asyncio
import json
import shlex
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from subprocess import CalledProcessError
from typing import TypeVar

import httpx
import psutil
from peer_build import peer_programs
from reference_sets import add_pair_arguments, check_pair_arguments, chosen_pair
from server_load import count_tokens, dealt, load, long_text, stall, tasks
from server_results import Disturbance, Load, Measured, check_prompts, record, summary
from server_tables import line, print_tables

from llamaspec.bench.local_server import LocalServer, clean_environment
from llamaspec.bench.noise import OtherLoad
from llamaspec.bench.paired import WARM_UP, rotated
from llamaspec.bench.streaming import Task, client_of, marked
from llamaspec.bench.workload import Prompt, load_workload
from llamaspec.errors import LlamaspecError, ServerError
from llamaspec.native.api import binding_version
from llamaspec.native.devices import physical_cores

OURS, PEER = "llamaspec", "llama-server"
SUBJECTS = ("llamaspec:auto", "llama-server:8:0.5", "llama-server:plain")
STREAMED = (
    "Write a long story in several chapters about a family that runs a ferry on a wide river, from the first "
    "boat to the year the bridge is built. Take your time: describe the people, the weather and the work."
)
LEAD = 20
"""Pieces of a stream before the long prompt is sent: the draft model has read the stream's prompt by then."""
LONG_ANSWER = 8
WARM_UP_TOKENS = 32
MEMORY_LEFT = 1 << 30


@dataclass(frozen=True, slots=True)
class Subject:
    """A server and its speculation: the flags that say so, and whether it takes the draft model."""

    name: str
    program: str
    flags: tuple[str, ...]
    drafts: bool


def subject(name: str) -> Subject:
    """What a name stands for. Raises ValueError for a name that means nothing."""
    match name.split(":"):
        case ["llamaspec", ("auto" | "off") as mode]:
            return Subject(name, OURS, ("--spec", mode), mode == "auto")
        case ["llamaspec", "fixed", most, least]:
            longest = ("--draft-max", str(int(most)), "--draft-min", "0")
            flags = ("--spec", "fixed", *longest, "--draft-p-min", str(float(least)))
            return Subject(name, OURS, flags, True)
        case ["llama-server", "plain"]:
            return Subject(name, PEER, (), False)
        case ["llama-server", most, least]:
            longest = ("--spec-draft-n-max", str(int(most)), "--spec-draft-n-min", "0")
            flags = ("--spec-type", "draft-simple", *longest, "--spec-draft-p-min", str(float(least)))
            return Subject(name, PEER, flags, True)
    raise ValueError(
        f"{name!r} is none of llamaspec:auto, llamaspec:off, llamaspec:fixed:MAX:PMIN, "
        "llama-server:MAX:PMIN and llama-server:plain"
    )


def command(
    of: Subject, program: Sequence[str], main: Path, draft: Path | None, options: argparse.Namespace
) -> list[str]:
    """What starts a server; `program` is what its command begins with."""
    threads, draft_layers = str(options.threads), options.gpu_layers_draft
    line = [*program, "-m", str(main), *of.flags, "--parallel", str(options.parallel)]
    line += ["-c", str(options.ctx_size), "-t", threads, "-tb", threads]
    line += ["-ngl", options.gpu_layers] if options.gpu_layers else []
    if of.drafts and draft is not None:
        line += ["-md", str(draft), *(["-ngld", draft_layers] if draft_layers else [])]
    return line


@contextmanager
def all_started(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, LocalServer]]:
    """Every server, loaded; what llamaspec learns begins with nothing and is kept by each for itself.

    Raises ServerError, also where they leave too little memory.
    """
    with ExitStack() as stack:
        servers = {}
        for name, line in commands.items():
            cache = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            print(f"$ {shlex.join(line)}", file=sys.stderr, flush=True)
            environment = clean_environment() | {"LLAMASPEC_CACHE": cache}
            servers[name] = stack.enter_context(LocalServer(name, line, environment))
            if (left := psutil.virtual_memory().available) < MEMORY_LEFT:
                raise servers[name].failure(f"leaves {left >> 20} MiB of memory: name fewer subjects")
        yield servers


class StrangerLoad(OtherLoad):
    """What programs other than this one, the servers and their children have used of the machine."""

    def __init__(self, servers: Sequence[int]) -> None:
        self._servers = [psutil.Process(pid) for pid in servers]
        super().__init__()

    def _seconds(self) -> tuple[float, float]:
        others, whole = super()._seconds()
        return others - sum(map(_processor_seconds, self._servers)), whole


def _processor_seconds(process: psutil.Process) -> float:
    """Of a process and its children, those that have ended too where the system counts them."""
    try:
        times = process.cpu_times()
        living = sum(map(_processor_seconds, process.children()))
    except psutil.NoSuchProcess:
        return 0.0
    return living + times.user + times.system + times.children_user + times.children_system


Result = TypeVar("Result")


def within(server: LocalServer, work: Callable[[httpx.AsyncClient], Awaitable[Result]]) -> Result:
    """What `work` makes of a client of the server. Raises ServerError with the end of the server's log."""

    async def session() -> Result:
        async with client_of(f"{server.url}/v1") as http:
            return await work(http)

    try:
        return asyncio.run(session())
    except (httpx.HTTPError, ServerError) as error:
        raise server.failure(f"failed: {str(error) or repr(error)}") from error


def loads(
    servers: Mapping[str, LocalServer], prompts: Sequence[Prompt], options: argparse.Namespace
) -> Iterator[Load]:
    """Each round: for each number of clients, the same prompts to every server."""
    strangers = StrangerLoad([server.pid for server in servers.values()])
    for number, clients in product(range(options.rounds), options.clients):
        chance = Random(f"{options.seed} {number} {clients}")
        share = dealt(tasks(prompts, clients, options.n_predict, chance), clients)
        for name in rotated(list(servers), number):
            strangers.share()
            answers = within(servers[name], partial(load, share=share))
            yield Load(name, number, clients, tuple(answers), strangers.share())


def stalls(
    servers: Mapping[str, LocalServer], prompts: Sequence[Prompt], options: argparse.Namespace
) -> Iterator[Disturbance]:
    """Each round: the same streams and the same long prompt to every server."""
    strangers = StrangerLoad([server.pid for server in servers.values()])
    text = long_text(prompts, 8 * options.long_prompt)
    tokens = within(next(iter(servers.values())), partial(count_tokens, text=text))
    text = long_text(prompts, len(text) * options.long_prompt // tokens)
    for number in range(options.rounds):
        chance = Random(f"{options.seed} {number} stall")
        streams = [Task("stream", marked(STREAMED, chance), options.n_predict) for _ in range(2)]
        long = Task("long prompt", marked(text, chance), LONG_ANSWER)
        work = partial(stall, quiet=streams[0], disturbed=streams[1], long=long, lead=LEAD)
        for name in rotated(list(servers), number):
            strangers.share()
            yield Disturbance(name, number, within(servers[name], work), strangers.share())


def measure(options: argparse.Namespace) -> list[Measured]:
    """All rounds; a line for each is printed, and the JSON file written, as soon as it is done.

    Raises LlamaspecError, OSError, and CalledProcessError where llama-server can't be built.
    """
    prompts = load_workload(options.workload).select(options.kinds, options.prompts).prompts
    main, draft = chosen_pair(options)
    programs = {OURS: [sys.executable, "-m", "llamaspec", "serve"]}
    if any(one.program == PEER for one in options.subjects):
        programs[PEER] = [str(options.peer or peer_programs(options.peers_dir)[PEER])]
    commands = {
        one.name: command(one, programs[one.program], main, draft, options) for one in options.subjects
    }
    about = {"binding": binding_version(), "commands": commands, "parameters": parameters(options)}
    measured: list[Measured] = []
    with all_started(commands) as servers:
        warm_up = dealt([Task("warm-up", WARM_UP, WARM_UP_TOKENS)] * options.parallel, options.parallel)
        for server in servers.values():
            within(server, partial(load, share=warm_up))
        for one in (stalls if options.stall else loads)(servers, prompts, options):
            measured.append(one)
            check_prompts(measured)
            print(line(one, options.rounds), file=sys.stderr, flush=True)
            if options.json:
                whole = {**about, "summary": summary(measured), "measured": [record(m) for m in measured]}
                options.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding="utf-8")
    return measured


def parameters(options: argparse.Namespace) -> dict[str, object]:
    """What was asked for, as JSON has it."""
    kept = ("set", "kinds", "prompts", "clients", "n_predict", "rounds", "seed", "stall", "long_prompt")
    return {key: getattr(options, key) for key in kept} | {"workload": str(options.workload or "default")}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare llamaspec serve with llama-server over HTTP.")
    add_pair_arguments(parser)
    parser.add_argument(
        "--subjects", nargs="+", default=list(SUBJECTS), metavar="NAME", help="the list above; each once"
    )
    parser.add_argument("--peer", type=Path, metavar="PATH", help="llama-server, in place of a build")
    parser.add_argument("--peers-dir", type=Path, help="folder with llama.cpp's programs, likewise")
    parser.add_argument("--stall", action="store_true", help="measure what a long prompt does to a stream")
    parser.add_argument("--clients", nargs="+", type=int, default=[8, 1], metavar="N", help="at a time")
    parser.add_argument("--parallel", type=int, default=4, help="slots of each server")
    parser.add_argument("--workload", type=Path, help="YAML file of prompts (default: the shipped ones)")
    parser.add_argument("--kinds", nargs="+", default=[], metavar="KIND", help="default: all of the workload")
    parser.add_argument("--prompts", type=int, metavar="N", help="the first N of each kind (default: all)")
    parser.add_argument("-n", "--n-predict", type=int, help="default: 128; with --stall 200")
    parser.add_argument("--long-prompt", type=int, default=3000, metavar="N", help="its tokens, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the prompts' first lines")
    parser.add_argument("-c", "--ctx-size", type=int, default=16384, help="of all slots together")
    parser.add_argument("-t", "--threads", type=int, default=physical_cores())
    parser.add_argument("-ngl", "--gpu-layers", metavar="auto|all|N", help="default: each server's own")
    parser.add_argument("-ngld", "--gpu-layers-draft", metavar="auto|all|N")
    parser.add_argument("--json", type=Path, help="write commands, figures and answers here, as they come")
    options = parser.parse_args(arguments)
    check_pair_arguments(parser, options)
    if options.peer and options.peers_dir:
        parser.error("give --peer or --peers-dir")
    if min(options.rounds, options.parallel, options.long_prompt, *options.clients) < 1:
        parser.error("rounds, slots, clients and the long prompt are at least 1")
    if options.n_predict is None:
        options.n_predict = 200 if options.stall else 128
    if options.n_predict <= (LEAD if options.stall else 1):
        parser.error("answers of so few tokens show nothing")
    for listed in (options.subjects, options.clients):
        if len(set(listed)) < len(listed):
            parser.error("a subject or a number of clients is named twice")
    try:
        options.subjects = [subject(name) for name in options.subjects]
    except ValueError as error:
        parser.error(f"--subjects: {error}")
    return options


def main() -> int:
    try:
        measured = measure(parse_arguments())
    except LlamaspecError as error:
        print(f"{error.message} {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    except (OSError, CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print_tables(measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
