#!/usr/bin/env python3
"""Our own time per round: all that is not spent in llama.cpp, against a bound per round and drafted token.

`instant` runs the engine on backends that answer at once from prepared rows with a vocabulary of
151,936: nothing but our Python. `real` runs a pair, where caches are cold after each evaluation, and
counts what happens outside of `llama_decode` and of fetching its logits.

Time is split in three: within drafting, within verification (filling batches, viewing logits), and the
rest (judging the draft, text, cutting the KV caches back, bookkeeping).

Usage: scripts/bench_overhead.py [instant] [-n 400] [--draft-max 0 4 16] [--profile]
       scripts/bench_overhead.py real -m MAIN.gguf -md DRAFT.gguf
"""

import argparse
import cProfile
import pstats
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.ports import Feed, Row
from llamaspec.decode.sequence import Request
from llamaspec.engine.engine import Engine
from llamaspec.errors import LlamaspecError
from llamaspec.native.api import lib
from llamaspec.native.context import Context, ContextOptions
from llamaspec.native.devices import physical_cores
from llamaspec.native.model import Model
from llamaspec.settings import MAX_DRAFT, SamplingSettings, SpeculationSettings
from llamaspec.stats import Stats

ROUND_MS, TOKEN_MS = 0.3, 0.1  # the bound: per round, and on top of it per drafted token
VOCAB = 151_936
CONTEXT = 4096
PROMPT = "<|im_start|>user\nWrite a quick sort in Python.<|im_end|>\n<|im_start|>assistant\n"
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8, "seed": 1},
}

Clock = Callable[[], float]


@dataclass(slots=True)
class Stopwatch:
    """Seconds spent in the functions that it is `around`."""

    clock: Clock
    seconds: float = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = self.clock()
            try:
                return function(*arguments)
            finally:
                self.seconds += self.clock() - start

        return timed


@dataclass(frozen=True, slots=True)
class Rig:
    """An engine with stopwatches around what is not ours, and a prompt for it."""

    engine: Engine
    main_native: Stopwatch
    draft_native: Stopwatch
    prompt: tuple[int, ...]


class InstantBackend:
    """A `decode.ports.Backend`: logits by position alone, from `bank`, shape [rows, vocab]."""

    vocab_size = VOCAB
    context_size = CONTEXT
    can_copy = True
    cells = CONTEXT
    batch_size = 2048
    max_rows = MAX_DRAFT + 1

    def __init__(self, bank: NDArray[np.float32], native: Stopwatch) -> None:
        self._period = len(bank) - self.max_rows
        self._bank = bank
        self.decode = native.around(self._decode)

    def _decode(self, feeds: Sequence[Feed]) -> list[Row]:
        views = []
        for feed in feeds:
            start = (feed.position + len(feed.tokens) - feed.rows) % self._period
            views.append(self._bank[start : start + feed.rows])
        return views

    def truncate(self, sequence: int, length: int) -> int:
        return length

    def copy(self, source: int, target: int, length: int) -> int:
        return length


class InstantVocabulary:
    vocab_size = VOCAB
    eog_tokens = ()

    def is_eog(self, token: int) -> bool:
        return False

    def piece(self, token: int) -> bytes:
        return b" word"

    def special_piece(self, token: int) -> bytes:
        return b" word"


def instant_rig(clock: Clock) -> Rig:
    main_native, draft_native = Stopwatch(clock), Stopwatch(clock)
    bank = _logits()
    drafts = bank.copy()
    # A draft model that is sure of another token in one of five places.
    drafts[::5, 7] = drafts.max() + 4
    main = InstantBackend(bank, main_native)
    drafter = ModelDrafter(InstantBackend(drafts, draft_native), VOCAB)
    engine = Engine(main, InstantVocabulary(), [drafter], clock=clock)
    return Rig(engine, main_native, draft_native, tuple(range(100)))


def _logits() -> NDArray[np.float32]:
    """Rows shaped as a language model's: a broad hill, and few tokens above it, by turns one or many."""
    random = np.random.default_rng(0)
    period = 48
    rows = random.normal(0.0, 2.5, (period, VOCAB)).astype(np.float32)
    for place, row in enumerate(rows):
        near = random.integers(0, VOCAB, 12)
        row[near] = 20.0 - np.arange(12) * (4.0 if place % 3 else 0.7)
    return np.concatenate([rows, rows, rows])[: period + InstantBackend.max_rows]


@contextmanager
def real_rig(main: Path, draft: Path, threads: int, clock: Clock) -> Iterator[Rig]:
    options = ContextOptions(CONTEXT, max_rows=MAX_DRAFT + 1, threads=threads, threads_batch=threads)
    main_native, draft_native = Stopwatch(clock), Stopwatch(clock)
    with (
        Model(main) as model,
        Model(draft) as draft_model,
        Context(model, options) as context,
        Context(draft_model, options) as draft_context,
        _timed_library(context, main_native, draft_native),
    ):
        drafter = ModelDrafter(draft_context, model.vocab_size)
        engine = Engine(context, model, [drafter], clock=clock)
        yield Rig(engine, main_native, draft_native, tuple(model.tokenize(PROMPT)))


@contextmanager
def _timed_library(context: Context, main: Stopwatch, draft: Stopwatch) -> Iterator[None]:
    """Time the library's evaluation, apart for `context` and for any other. Fetching logits waits for it."""
    originals = {name: getattr(lib, name) for name in ("llama_decode", "llama_get_logits")}

    def replacement(function: Callable[..., Any]) -> Callable[..., Any]:
        for_main, for_draft = main.around(function), draft.around(function)
        return lambda pointer, *rest: (for_main if pointer is context.pointer else for_draft)(pointer, *rest)

    for name, function in originals.items():
        setattr(lib, name, replacement(function))
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(lib, name, function)


@dataclass(frozen=True, slots=True)
class Overhead:
    """Our own milliseconds per round; `drafted` is tokens per round."""

    rounds: int
    drafted: float
    drafting: float
    verifying: float
    rest: float

    @property
    def total(self) -> float:
        return self.drafting + self.verifying + self.rest

    @property
    def bound(self) -> float:
        return ROUND_MS + TOKEN_MS * self.drafted


def measure(rig: Rig, sampling: SamplingSettings, draft_max: int) -> Overhead:
    stats = Stats()
    request = Request(rig.prompt, sampling, SpeculationSettings(mode="fixed", draft_max=draft_max, p_min=0.0))
    events = rig.engine.generate(request, stats)
    next(events)  # the prompt has been read: what came before is no part of the rounds
    rig.main_native.seconds = rig.draft_native.seconds = 0.0
    for _ in events:
        pass
    scale = 1000.0 / stats.rounds
    return Overhead(
        rounds=stats.rounds,
        drafted=stats.draft_n / stats.rounds,
        drafting=(stats.draft_seconds - rig.draft_native.seconds) * scale,
        verifying=(stats.verify_seconds - rig.main_native.seconds) * scale,
        rest=stats.overhead_seconds * scale,
    )


def report(rig: Rig, n_predict: int, draft_maxima: Sequence[int], profile: bool) -> None:
    table = Table(title="Our own milliseconds per round")
    for heading in ("sampling", "draft-max", "rounds", "drafted", "drafting", "verifying", "rest"):
        table.add_column(heading, justify="right")
    for heading in ("total", "bound", "of bound"):
        table.add_column(heading, justify="right")
    profiler = cProfile.Profile()
    for name, settings in SAMPLINGS.items():
        sampling = SamplingSettings(n_predict=n_predict, **settings)
        measure(rig, sampling.model_copy(update={"n_predict": 16}), max(draft_maxima))  # warm
        for draft_max in draft_maxima:
            if profile:
                profiler.enable()
            found = measure(rig, sampling, draft_max)
            profiler.disable()
            figures = (found.drafted, found.drafting, found.verifying, found.rest, found.total, found.bound)
            table.add_row(
                name,
                str(draft_max),
                str(found.rounds),
                *(f"{figure:.3f}" for figure in figures),
                f"{found.total / found.bound:.0%}",
            )
    console = Console()
    if not console.is_terminal:
        console.width = 110
    console.print(table)
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure our own time per round.")
    parser.add_argument("backend", nargs="?", choices=("instant", "real"), default="instant")
    parser.add_argument("-m", "--model", type=Path, help="main model, for real")
    parser.add_argument("-md", "--model-draft", type=Path, help="draft model, for real")
    parser.add_argument("-n", "--n-predict", type=int, default=400)
    parser.add_argument("-t", "--threads", type=int, default=physical_cores())
    parser.add_argument("--draft-max", type=int, nargs="+", default=[0, 4, 16])
    parser.add_argument("--profile", action="store_true", help="show where the time goes; slows all down")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count this thread's processor time: for a busy machine, where its resolution is fine",
    )
    options = parser.parse_args()
    clock = time.thread_time if options.cpu_time else time.perf_counter
    how = (options.n_predict, options.draft_max, options.profile)
    if options.backend == "instant":
        report(instant_rig(clock), *how)
        return 0
    if options.model is None or options.model_draft is None:
        parser.error("real needs -m and -md")
    try:
        with real_rig(options.model, options.model_draft, options.threads, clock) as rig:
            report(rig, *how)
    except LlamaspecError as error:
        print(f"{error.message} {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
