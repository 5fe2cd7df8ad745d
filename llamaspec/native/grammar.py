"""Grammars: GBNF text or a JSON schema → a constraint on tokens, one native pointer each."""

import ctypes
import json
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llamaspec.errors import ClosedError, GrammarError
from llamaspec.native import api
from llamaspec.native.api import lib
from llamaspec.native.model import Model

MAX_BYTES = 1 << 16
MAX_NESTING = 64

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)


class NativeGrammar:
    """The state of a llama.cpp grammar. See `decode.ports.Grammar` for the contract."""

    def __init__(self, model: Model, text: str) -> None:
        """Compile GBNF with the rule `root`. Raises GrammarError where it doesn't compile."""
        _check_size(text)
        api.start()
        api.forget_complaints()
        self._model = model
        self._pointer: Any = lib.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
        if not self._pointer:
            raise GrammarError(
                f"The grammar does not compile: {api.last_complaint()}",
                'It is GBNF and needs a rule "root".',
            )

    @property
    def pointer(self) -> Any:
        if not self._pointer:
            raise ClosedError("The grammar is closed.")
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
        lib.llama_sampler_apply(self.pointer, ctypes.byref(array))
        return np.asarray(candidates["logit"] == 0.0)

    def accept(self, token: int) -> None:
        # llama.cpp throws through the C interface on a token that is not allowed, which ends the process.
        if not self.allowed(np.array([token]))[0]:
            raise GrammarError(f"Token {token} is not allowed by the grammar here.")
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


def schema_to_grammar(schema: str) -> str:
    """GBNF for the texts that a JSON schema allows. Raises GrammarError for what can't be expressed."""
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    if len(schema.encode()) > MAX_BYTES:
        raise GrammarError(f"The JSON schema is longer than {MAX_BYTES} bytes.")
    try:
        parsed = json.loads(schema)
        if not isinstance(parsed, dict):
            raise GrammarError("A JSON schema is an object.", "Give at least {} for any JSON value.")
        if "://" in json.dumps(_values(parsed, "$ref")):
            raise GrammarError("The JSON schema refers to another address, and none is fetched.")
        return str(json_schema_to_gbnf(schema))
    except json.JSONDecodeError as error:
        raise GrammarError(f"The JSON schema is not JSON: {error}") from error
    except GrammarError:
        raise
    except (Exception, RecursionError) as error:  # the converter raises whatever it stumbles on
        raise GrammarError(f"The JSON schema can't be turned into a grammar: {error}") from error


def _values(node: Any, key: str) -> list[Any]:
    if isinstance(node, dict):
        own = [node[key]] if key in node else []
        return own + [found for value in node.values() for found in _values(value, key)]
    if isinstance(node, list):
        return [found for value in node for found in _values(value, key)]
    return []


def _check_size(text: str) -> None:
    """llama.cpp's parser recurses for every group and dies of a deep enough one."""
    if len(text.encode()) > MAX_BYTES:
        raise GrammarError(f"The grammar is longer than {MAX_BYTES} bytes.")
    if "\0" in text:
        raise GrammarError("The grammar holds a NUL character.")
    depth = deepest = 0
    for character in text:  # groups in literals count too: a cap, not a parser
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        raise GrammarError(f"The grammar nests {deepest} groups; at most {MAX_NESTING} are taken.")
