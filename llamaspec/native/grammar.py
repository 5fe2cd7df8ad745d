"""Grammars: GBNF text or a JSON schema → a constraint on tokens, one native pointer each."""

import ctypes
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from llamaspec.errors import ClosedError, GrammarError
from llamaspec.native import api, gbnf
from llamaspec.native.api import lib
from llamaspec.native.gbnf import MAX_BYTES, MAX_NESTING
from llamaspec.native.schema import schema_to_grammar

__all__ = ["MAX_BYTES", "MAX_NESTING", "NativeGrammar", "Vocabulary", "schema_to_grammar"]

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)

MAX_LOOK_SECONDS = 0.5
MAX_ACCEPT_SECONDS = 0.1
"""Of CPU. The ways to read a text can double with each of its tokens, and what a token costs grows faster."""

_one_at_a_time = threading.Lock()  # standard error belongs to the whole process


class Vocabulary(Protocol):
    """What a grammar needs of a model: the vocabulary, and `pointer`, which raises if it is closed."""

    @property
    def vocab(self) -> Any: ...

    @property
    def pointer(self) -> Any: ...


class NativeGrammar:
    """The state of a llama.cpp grammar. See `decode.ports.Grammar` for the contract."""

    def __init__(self, vocabulary: Vocabulary, text: str) -> None:
        """Compile GBNF with the rule `root`. Raises GrammarError where it doesn't compile."""
        gbnf.check(text)
        self._model = vocabulary
        self._pointer: Any = _compile(vocabulary, text, "root")

    @classmethod
    def unchecked(cls, vocabulary: Vocabulary, text: str, start: str) -> Self:
        """The same for GBNF that is known to do the parser no harm, to begin with the rule `start`."""
        grammar = object.__new__(cls)
        grammar._model = vocabulary
        grammar._pointer = _compile(vocabulary, text, start)
        return grammar

    @property
    def pointer(self) -> Any:
        if not self._pointer:
            raise ClosedError("The grammar is closed.")
        _ = self._model.pointer
        return self._pointer

    def allowed(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        candidates = np.zeros(tokens.size, _CANDIDATE)
        candidates["id"] = tokens
        array = lib.llama_token_data_array(
            data=candidates.ctypes.data_as(lib.llama_token_data_p),
            size=tokens.size,
            selected=-1,
            sorted=False,
        )
        with _within(MAX_LOOK_SECONDS):
            lib.llama_sampler_apply(self.pointer, ctypes.byref(array))
        return np.asarray(candidates["logit"] == 0.0)

    def accept(self, token: int) -> None:
        # llama.cpp throws through the C interface on a token that is not allowed, which ends the process.
        if not self.allowed(np.array([token]))[0]:
            raise GrammarError(f"Token {token} is not allowed by the grammar here.")
        with _within(MAX_ACCEPT_SECONDS):
            lib.llama_sampler_accept(self.pointer, token)

    def copy(self) -> Self:
        clone = object.__new__(type(self))
        clone._model = self._model
        clone._pointer = lib.llama_sampler_clone(self.pointer)
        return clone

    def close(self) -> None:
        """Free the grammar. A second call does nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer:
            lib.llama_sampler_free(pointer)

    def __del__(self) -> None:
        # Copies are made for every draft and have no other owner to close them.
        if getattr(self, "_pointer", None):
            self.close()


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises GrammarError after what took longer: the next time it would take longer still."""
    began = time.thread_time()
    yield
    if time.thread_time() - began > seconds:
        raise GrammarError(
            "The grammar has too many ways to read this text.", "Have fewer alternatives that begin alike."
        )


def _compile(vocabulary: Vocabulary, text: str, start: str) -> Any:
    api.start()
    with _one_at_a_time:
        api.forget_complaints()
        with _native_stderr() as said:
            pointer = lib.llama_sampler_init_grammar(vocabulary.vocab, text.encode(), start.encode())
        reason = said[0].partition("\n")[0].removeprefix("parse: error parsing grammar: ")
        reason = reason or api.last_complaint()
    if not pointer:
        raise GrammarError(f"The grammar does not compile: {reason}", 'It is GBNF and needs a rule "root".')
    return pointer


@contextmanager
def _native_stderr() -> Iterator[list[str]]:
    """What the library prints to the process's standard error meanwhile: its parser does not use its log."""
    said = [""]
    if sys.stderr is not None:  # as in a program without a console
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # it is closed
        yield said
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            said[0] = caught.read(4096).decode("utf-8", "replace").strip()
