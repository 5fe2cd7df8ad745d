"""Model: weights and vocabulary, one native pointer."""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llamaspec.closing import Closing
from llamaspec.errors import ClosedError, ModelFileError, UsageError
from llamaspec.native import api
from llamaspec.native.api import lib

_MAX_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class FillIn:
    """Tokens that mark what comes before a gap, what comes behind it, and where its text begins.

    `repository` and `file` head the name of a project and of a file in it; not every model has them.
    """

    prefix: int
    suffix: int
    middle: int
    repository: int | None
    file: int | None


class Model(Closing):
    """A loaded GGUF file. Contexts made from it keep it alive; close them first.

    `devices` are the handles of `native.devices.Device`, in the order layers are dealt out; none means
    the CPU. `tensor_split` gives each device its share of the `gpu_layers` offloaded layers.
    """

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = 0,
        devices: Sequence[int] = (),
        tensor_split: Sequence[float] = (),
    ) -> None:
        api.start()
        api.forget_complaints()
        self.path = path
        params = lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        # A list of our own, NULL-terminated: an empty one means no device, where NULL would mean all.
        handles = (ctypes.c_void_p * (len(devices) + 1))(*devices, None)
        params.devices = ctypes.cast(handles, ctypes.c_void_p)
        split = (ctypes.c_float * lib.llama_max_devices())(*tensor_split)
        if tensor_split:
            params.tensor_split = split
        self._pointer: Any = None
        try:
            with api.held_interrupt():
                self._pointer = lib.llama_model_load_from_file(os.fsencode(path), params)
        except BaseException:
            self.close()
            raise
        if not self._pointer:
            raise ModelFileError(
                f"llama.cpp can't load {path.name}: {api.last_complaint()}",
                "Run again with --verbose for its log.",
            )
        self._vocab = lib.llama_model_get_vocab(self._pointer)
        self._pieces: dict[int, bytes] = {}
        self._eog: dict[int, bool] = {}

    @property
    def pointer(self) -> Any:
        if not self._pointer:
            raise ClosedError(f"The model {self.path.name} is closed.")
        return self._pointer

    @property
    def vocab(self) -> Any:
        _ = self.pointer
        return self._vocab

    @cached_property
    def vocab_size(self) -> int:
        return int(lib.llama_vocab_n_tokens(self.vocab))

    @cached_property
    def keeps_all_positions(self) -> bool:
        """False where the past can't be cut token by token: recurrent and hybrid models."""
        return not (lib.llama_model_is_recurrent(self.pointer) or lib.llama_model_is_hybrid(self.pointer))

    @cached_property
    def bos(self) -> int | None:
        token = int(lib.llama_vocab_bos(self.vocab))
        return token if token >= 0 else None

    @cached_property
    def eos(self) -> int | None:
        token = int(lib.llama_vocab_eos(self.vocab))
        return token if token >= 0 else None

    @cached_property
    def eog_tokens(self) -> tuple[int, ...]:
        """Every id that ends a generation, of which a vocabulary may have several."""
        return tuple(t for t in range(self.vocab_size) if lib.llama_vocab_is_eog(self.vocab, t))

    def is_eog(self, token: int) -> bool:
        known = self._eog.get(token)
        if known is None:
            known = self._eog[token] = bool(lib.llama_vocab_is_eog(self.vocab, token))
        return known

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to the text; control tokens add none."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token, special=False)
        return piece

    def special_text(self, token: int | None) -> str:
        """A token as it is written in a template, control tokens included."""
        return "" if token is None else self.special_piece(token).decode("utf-8", "replace")

    def special_piece(self, token: int) -> bytes:
        """The bytes that a token is written with in a template, control tokens included."""
        return self._read_piece(token, special=True)

    @cached_property
    def fill_in(self) -> FillIn | None:
        """The control tokens for text between two others; None where the model was not trained for it."""
        names = ("pre", "suf", "mid", "rep", "sep")
        tokens = [int(getattr(lib, f"llama_vocab_fim_{name}")(self.vocab)) for name in names]
        prefix, suffix, middle, repository, file = (token if token >= 0 else None for token in tokens)
        if prefix is None or suffix is None or middle is None:
            return None
        return FillIn(prefix, suffix, middle, repository, file)

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise UsageError(f"Token {token} is not in a vocabulary of {self.vocab_size}.")
        size = 64
        while size <= _MAX_PIECE:
            buffer = ctypes.create_string_buffer(size)
            written = int(lib.llama_token_to_piece(self.vocab, token, buffer, size, 0, special))
            if written >= 0:
                return buffer.raw[:written]
            size = -written
        raise ModelFileError(f"Token {token} of {self.path.name} is longer than {_MAX_PIECE} bytes.")

    def tokenize(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        """Token ids of a text. With `special`, names of control tokens in the text become those tokens.

        With `add_special` a BOS is put in front where the vocabulary asks for one and the text does not begin
        with it.
        """
        data = text.encode("utf-8", "surrogatepass" if text.isascii() else "replace")
        bos = self.special_text(self.bos)
        add_special = add_special and not (special and bos and text.startswith(bos))
        room = len(data) + 8
        tokens = (lib.llama_token * room)()
        count = int(lib.llama_tokenize(self.vocab, data, len(data), tokens, room, add_special, special))
        if count < 0:
            room = -count
            tokens = (lib.llama_token * room)()
            count = int(lib.llama_tokenize(self.vocab, data, len(data), tokens, room, add_special, special))
        if count < 0:
            raise UsageError("The prompt can't be tokenised with this model's vocabulary.")
        return list(tokens[:count])

    def close(self) -> None:
        """Free the weights. A second call does nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer:
            lib.llama_model_free(pointer)
