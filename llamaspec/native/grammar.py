"""Grammars: GBNF text or a JSON schema → a constraint on tokens, one native pointer each."""

import ctypes
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llamaspec.errors import ClosedError, GrammarError
from llamaspec.native import api
from llamaspec.native.api import lib
from llamaspec.native.model import Model

MAX_BYTES = 1 << 16
MAX_NESTING = 64
MAX_REPETITIONS = 128

_REPETITION = re.compile(r"\{\s*0*(\d{1,20})\s*,\s*0*(\d{1,20})\s*\}")

_KEYWORDS = frozenset(
    [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "enum",
        "const",
        "oneOf",
        "anyOf",
        "allOf",
        "$ref",
        "$defs",
        "definitions",
        "pattern",
        "minLength",
        "maxLength",
        "format",
        "title",
        "description",
        "default",
        "examples",
        "$schema",
        "$id",
        "$comment",
    ]
)
_FORMATS = ("date", "time", "date-time", "uuid")

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)


class NativeGrammar:
    """The state of a llama.cpp grammar. See `decode.ports.Grammar` for the contract."""

    def __init__(self, model: Model, text: str) -> None:
        """Compile GBNF with the rule `root`. Raises GrammarError where it doesn't compile."""
        _check_size(text)
        api.start()
        api.forget_complaints()
        self._model = model
        with _native_stderr() as said:
            self._pointer: Any = lib.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
        if not self._pointer:
            reason = said[0].partition("\n")[0].removeprefix("parse: error parsing grammar: ")
            reason = reason or api.last_complaint()
            raise GrammarError(
                f"The grammar does not compile: {reason}", 'It is GBNF and needs a rule "root".'
            )

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

    if len(schema.encode("utf-8", "replace")) > MAX_BYTES:
        raise GrammarError(f"The JSON schema is longer than {MAX_BYTES} bytes.")
    try:
        parsed = json.loads(schema)
        if not isinstance(parsed, dict):
            raise GrammarError("A JSON schema is an object.", "Give at least {} for any JSON value.")
        if "://" in json.dumps(_values(parsed, "$ref")):
            raise GrammarError("The JSON schema refers to another address, and none is fetched.")
        _check_schema(parsed)
        # The converter's strings may hold control characters, which JSON does not allow.
        return str(json_schema_to_gbnf(schema)).replace(
            r'char ::= [^"\\]', r'char ::= [^"\\\x7F\x00-\x1F]', 1
        )
    except json.JSONDecodeError as error:
        raise GrammarError(f"The JSON schema is not JSON: {error}") from error
    except GrammarError:
        raise
    except (Exception, RecursionError) as error:  # the converter raises whatever it stumbles on
        raise GrammarError(f"The JSON schema can't be turned into a grammar: {error}") from error


def _check_schema(node: Any) -> None:
    """Refuse what the converter would leave out: an answer must not break a rule that was asked for."""
    if not isinstance(node, dict):
        return
    for keyword in node.keys() - _KEYWORDS:
        raise GrammarError(
            f"The JSON schema's {keyword!r} can't be kept: llamaspec would ignore it.",
            f"Supported: {', '.join(sorted(_KEYWORDS))}.",
        )
    if node.get("format") not in (None, *_FORMATS):
        raise GrammarError(f"The JSON schema's format {node['format']!r} can't be kept.")
    for least, most in (("minItems", "maxItems"), ("minLength", "maxLength")):
        if least in node and most in node and node[least] > node[most]:
            raise GrammarError(f"The JSON schema's {least} is above its {most}.")
    properties = node.get("properties", {})
    for name in node.get("required", []):
        if name not in properties:
            raise GrammarError(f"The JSON schema requires {name!r}, which is not among its properties.")
    named = [*properties.values(), *node.get("$defs", {}).values(), *node.get("definitions", {}).values()]
    several = [s for key in ("oneOf", "anyOf", "allOf", "prefixItems") for s in node.get(key, [])]
    items = node.get("items")
    below = [
        *named,
        *several,
        node.get("additionalProperties"),
        *(items if isinstance(items, list) else [items]),
    ]
    for schema in below:
        _check_schema(schema)


def _values(node: Any, key: str) -> list[Any]:
    if isinstance(node, dict):
        own = [node[key]] if key in node else []
        return own + [found for value in node.values() for found in _values(value, key)]
    if isinstance(node, list):
        return [found for value in node for found in _values(value, key)]
    return []


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


def _check_size(text: str) -> None:
    """Keep from llama.cpp's parser what it dies of: it recurses for every group, and loops for {2,1}.

    Literals that hold such text count too: these are caps, not a parser.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise GrammarError("The grammar is not valid Unicode text.") from error
    if size > MAX_BYTES:
        raise GrammarError(f"The grammar is longer than {MAX_BYTES} bytes.")
    if not text.strip():
        raise GrammarError("The grammar is empty: it would allow any text.")
    if "\0" in text:
        raise GrammarError("The grammar holds a NUL character.")
    if (choices := sum(map(text.count, "?*{"))) > MAX_REPETITIONS:
        raise GrammarError(
            f"The grammar has {choices} optional or repeated parts; at most {MAX_REPETITIONS} are taken.",
            "llama.cpp follows all their combinations at once.",
        )
    depth = deepest = 0
    for repeated in _REPETITION.finditer(text):
        if int(repeated[2]) < int(repeated[1]):
            raise GrammarError(f"The grammar repeats at least {repeated[1]} and at most {repeated[2]} times.")
    for character in text:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        raise GrammarError(f"The grammar nests {deepest} groups; at most {MAX_NESTING} are taken.")
