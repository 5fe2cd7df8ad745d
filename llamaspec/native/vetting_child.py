"""Tries grammars out for its parent process. Started by `llamaspec.native.vetting`, not imported by it.

Protocol: JSON lines. The first line in is the setup, {"model": path, "max_memory": bytes, "seconds": …}; it
is answered by {"ready": true} once the vocabulary is there. Each later line is {"grammar": GBNF}, answered by
{} where it is good or by {"error": …, "hint": …}. What takes too long, or ends the process, is the parent's
to notice; `seconds` only leaves nothing behind when the parent is gone.

How dear a grammar is shows in what llama.cpp's matcher does for a token: it follows every way to read the
token's characters, so that two ways for one character make 2^n for n of them, and keeps every way to read
the text so far. The first is tried at every place of the grammar; the second on walks through texts of the
grammar and of its rules that hold themselves, since only there it goes on growing. Some walks go where it
gets dearer. Both with a few hundred tokens that are likely to be dear; the dearest place with all of them.
What grows slowly enough to pass is stopped by `NativeGrammar` when it has become too dear.
"""

import contextlib
import ctypes
import faulthandler
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamaspec.errors import GrammarError, ModelFileError
from llamaspec.native import api
from llamaspec.native.api import lib
from llamaspec.native.gbnf import Positions, recursive_rules
from llamaspec.native.grammar import NativeGrammar

PROBE_SECONDS = 0.05  # of CPU, for the few tokens; usual is 0.3 ms
WHOLE_SECONDS = 0.5  # of CPU, for the whole vocabulary; usual is 10 ms for 152 k tokens
WALKS = ("first", "any", "dearest")
STEPS = 16  # tokens of a walk
TRIED = 3  # tokens that a walk to the dearest place chooses from
LONGEST = 150
RUNS = 64
OTHERS = 100

Tokens = NDArray[np.int64]


class VocabularyOnly:
    """A model file's vocabulary, without its weights. Lives as long as the process."""

    def __init__(self, path: Path) -> None:
        api.start()
        params = lib.llama_model_default_params()
        params.vocab_only = True
        params.n_gpu_layers = 0
        params.devices = ctypes.cast((ctypes.c_void_p * 1)(None), ctypes.c_void_p)
        self.pointer: Any = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self.pointer:
            raise ModelFileError(f"llama.cpp can't read the vocabulary of {path.name}.")
        self.vocab: Any = lib.llama_model_get_vocab(self.pointer)
        self.size = int(lib.llama_vocab_n_tokens(self.vocab))

    def is_eog(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self.vocab, token))

    def texts(self) -> list[str]:
        """What each token adds to the text; bytes that are no text are left out."""
        buffer = ctypes.create_string_buffer(256)
        sizes = (
            int(lib.llama_token_to_piece(self.vocab, token, buffer, 256, 0, False))
            for token in range(self.size)
        )
        return [buffer.raw[: max(size, 0)].decode("utf-8", "ignore") for size in sizes]


class Vetting:
    """Tries one grammar after the other against a vocabulary."""

    def __init__(self, vocabulary: VocabularyOnly) -> None:
        self._vocabulary = vocabulary
        self._everything: Tokens = np.arange(vocabulary.size)
        texts = vocabulary.texts()
        self._probe = probe(texts)
        self._digits = [texts.index(digit) for digit in "01"]
        self._slowest = 0.0
        self._dearest: NativeGrammar | None = None

    def check(self, text: str) -> None:
        """Raises GrammarError for a grammar that does not compile, or is too dear."""
        grammar = NativeGrammar(self._vocabulary, text)
        self._slowest, self._dearest = 0.0, None
        if not self._timed(grammar, self._everything, WHOLE_SECONDS).any():
            raise GrammarError("The grammar allows no token of this vocabulary to begin with.")
        self._visit(Positions(text))
        chance = random.Random(0)
        for start in ("root", *recursive_rules(text)):
            grammar = NativeGrammar.unchecked(self._vocabulary, text, start)
            for way in WALKS:
                self._walk(grammar, way, chance)
        if self._dearest is not None:
            self._timed(self._dearest, self._everything, WHOLE_SECONDS)

    def _visit(self, positions: Positions) -> None:
        """Try every place of the grammar."""
        pending = [(0, NativeGrammar.unchecked(self._vocabulary, positions.text, positions.start))]
        while pending:
            node, grammar = pending.pop()
            if node >= positions.count - 1:
                self._try(grammar)
            else:
                pending += [
                    (2 * node + 1 + digit, self._advanced(grammar, token))
                    for digit, token in enumerate(self._digits)
                ]

    def _walk(self, grammar: NativeGrammar, way: str, chance: random.Random) -> None:
        for _ in range(STEPS):
            open_to = self._probe[self._try(grammar)]
            if not open_to.size:
                open_to = self._everything[self._timed(grammar, self._everything, WHOLE_SECONDS)]
            choice = [int(token) for token in open_to if not self._vocabulary.is_eog(int(token))]
            if not choice:
                return
            if way == "dearest":
                tried = [
                    (self._after(grammar, token), token)
                    for token in chance.sample(choice, min(len(choice), TRIED))
                ]
                token = max(tried)[1]
            else:
                token = choice[0] if way == "first" else chance.choice(choice)
            grammar = self._advanced(grammar, token)

    def _after(self, grammar: NativeGrammar, token: int) -> float:
        """What the next token costs after this one, in seconds of CPU."""
        began = time.process_time()
        self._try(self._advanced(grammar, token))
        return time.process_time() - began

    def _advanced(self, grammar: NativeGrammar, token: int) -> NativeGrammar:
        advanced = grammar.copy()
        advanced.accept(token)
        return advanced

    def _try(self, grammar: NativeGrammar) -> NDArray[np.bool_]:
        """Which tokens of the probe may come next; remembers the grammar state that it took longest for."""
        began = time.process_time()
        allowed = self._timed(grammar, self._probe, PROBE_SECONDS)
        if (took := time.process_time() - began) > self._slowest:
            self._slowest, self._dearest = took, grammar.copy()
        return allowed

    def _timed(self, grammar: NativeGrammar, tokens: Tokens, seconds: float) -> NDArray[np.bool_]:
        began = time.process_time()
        allowed = grammar.allowed(tokens)
        if (took := time.process_time() - began) > seconds:
            raise GrammarError(
                f"The grammar is too dear: {1000 * took:.0f} ms to see which tokens may come next.",
                "Have fewer alternatives that begin alike.",
            )
        return allowed


def probe(texts: list[str]) -> Tokens:
    """The tokens to try grammars with: single characters, long ones, runs of one character, some others."""
    with_text = [token for token, text in enumerate(texts) if text]
    by_length = sorted(with_text, key=lambda token: len(texts[token]), reverse=True)
    runs: dict[str, int] = {}
    for token in by_length:
        if len(texts[token]) > 1 and len(set(texts[token])) == 1:
            runs.setdefault(texts[token][0], token)
    single = [token for token in with_text if len(texts[token]) == 1 and texts[token].isascii()]
    others = random.Random(0).sample(with_text, min(len(with_text), OTHERS))
    return np.array(sorted({*single, *by_length[:LONGEST], *list(runs.values())[:RUNS], *others}))


def limit_memory(max_bytes: int) -> None:
    """Bound what is used beyond the vocabulary, where the system can; elsewhere the parent watches."""
    if sys.platform != "win32":
        import resource

        import psutil

        most = psutil.Process().memory_info().vms + max_bytes
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(requests: Iterable[bytes]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    requests = iter(requests)
    setup = json.loads(next(requests))
    vetting = Vetting(VocabularyOnly(Path(setup["model"])))
    limit_memory(setup["max_memory"])
    answer({"ready": True})
    for request in requests:
        faulthandler.dump_traceback_later(setup["seconds"], exit=True)  # works while llama.cpp is busy
        try:
            vetting.check(json.loads(request)["grammar"])
        except GrammarError as error:
            answer({"error": error.message, "hint": error.hint})
        else:
            answer({})
        faulthandler.cancel_dump_traceback_later()


def answer(reply: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer)
