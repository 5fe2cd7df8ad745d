"""Context: the KV cache and the evaluation of batches, one native pointer. A `decode.ports.Backend`."""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamaspec.closing import Closing
from llamaspec.decode.ports import Feed, Row
from llamaspec.errors import ClosedError, ContextError, DecodeError, OutOfMemoryError
from llamaspec.native import api
from llamaspec.native.api import lib
from llamaspec.native.model import Model
from llamaspec.settings import KVType

_PARTIAL = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
_KV_TYPES: dict[KVType, int] = {
    "f32": lib.GGML_TYPE_F32,
    "f16": lib.GGML_TYPE_F16,
    "bf16": 30,  # not named by the binding
    "q8_0": lib.GGML_TYPE_Q8_0,
    "q5_1": lib.GGML_TYPE_Q5_1,
    "q5_0": lib.GGML_TYPE_Q5_0,
    "q4_1": lib.GGML_TYPE_Q4_1,
    "q4_0": lib.GGML_TYPE_Q4_0,
    "iq4_nl": lib.GGML_TYPE_IQ4_NL,
}


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """How a context is made. `context_size` is per sequence, `cells` (0: as much for each) for all together.

    `max_rows` bounds the logits rows of a batch. `rollback` is how many tokens at the end of the last batch
    may be taken back where the model keeps a state in place of a cache of positions.
    """

    context_size: int
    cells: int = 0
    sequences: int = 1
    batch_size: int = 2048
    ubatch_size: int = 512
    max_rows: int = 64
    rollback: int = 0
    threads: int = 1
    threads_batch: int = 1
    flash_attn: str = "auto"
    cache_type_k: KVType = "f16"
    cache_type_v: KVType = "f16"


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    length: int
    state: bytes


class Context(Closing):
    """Evaluates batches of a model for several sequences. See `Backend` for the contract."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        self._model = model  # kept alive: the context points into its weights
        api.forget_complaints()
        params = lib.llama_context_default_params()
        params.n_ctx = options.cells or options.context_size * options.sequences
        params.n_batch = options.batch_size
        params.n_ubatch = min(options.ubatch_size, options.batch_size)
        params.n_seq_max = options.sequences
        params.n_rs_seq = 0 if model.keeps_all_positions else options.rollback
        params.n_outputs_max = max(options.max_rows, options.sequences)
        params.n_outputs_max_per_seq = 0
        params.n_threads = options.threads
        params.n_threads_batch = options.threads_batch
        params.flash_attn_type = _FLASH_ATTN[options.flash_attn]
        params.type_k = _KV_TYPES[options.cache_type_k]
        params.type_v = _KV_TYPES[options.cache_type_v]
        params.swa_full = True  # a window that forgets positions could not be rolled back
        params.kv_unified = True
        params.no_perf = True
        self._pointer: Any = None
        try:
            with api.held_interrupt():
                self._pointer = lib.llama_init_from_model(model.pointer, params)
        except BaseException:
            self.close()
            raise
        if not self._pointer:
            raise OutOfMemoryError(
                f"llama.cpp can't make a context of {options.context_size} tokens for {model.path.name}: "
                f"{api.last_complaint()}",
                "Try a smaller context (-c), a quantised KV cache (-ctk q8_0 -ctv q8_0) or fewer GPU layers.",
            )
        self._memory = lib.llama_get_memory(self._pointer)
        self.vocab_size = model.vocab_size
        self.can_copy = model.keeps_all_positions
        self.context_size = options.context_size
        self.cells = options.cells or options.context_size * options.sequences
        self.batch_size = int(lib.llama_n_batch(self._pointer))
        self.max_rows = max(options.max_rows, options.sequences)
        self._rollback = int(lib.llama_n_rs_seq(self._pointer))
        self._batch = _Batch(self.batch_size)
        self._logits = _Logits(self.vocab_size)
        self._last_position: dict[int, int] = {}
        self._checkpoints: dict[int, _Checkpoint] = {}

    @property
    def pointer(self) -> Any:
        if not self._pointer:
            raise ClosedError(f"The context of {self._model.path.name} is closed.")
        _ = self._model.pointer
        return self._pointer

    def can_roll_back(self, tokens: int) -> bool:
        """Whether so many tokens can be taken back without evaluating others again."""
        return self._model.keeps_all_positions or self._rollback >= tokens

    def decode(self, feeds: Sequence[Feed]) -> list[Row]:
        pointer = self.pointer
        total = sum(len(feed.tokens) for feed in feeds)
        rows = sum(feed.rows for feed in feeds)
        self._check(feeds, total, rows)
        for feed in feeds:
            self._keep_checkpoint(feed)
        self._batch.fill(feeds)
        api.check_decode(int(lib.llama_decode(pointer, self._batch.struct)), total)
        logits = (
            self._logits.view(lib.llama_get_logits(pointer), rows) if rows else np.empty((0, 0), np.float32)
        )
        views, start = [], 0
        for feed in feeds:
            self._last_position[feed.sequence] = feed.position
            views.append(logits[start : start + feed.rows])
            start += feed.rows
        return views

    def truncate(self, sequence: int, length: int) -> int:
        _ = self.pointer
        if length > 0 and self._cut(sequence, length):
            return length
        checkpoint = self._checkpoints.pop(sequence, None)
        if checkpoint and 0 < checkpoint.length <= length and self._restore(sequence, checkpoint):
            return checkpoint.length
        if not lib.llama_memory_seq_rm(self._memory, sequence, -1, -1):
            raise DecodeError("llama.cpp can't clear a sequence of its KV cache.")
        self._last_position.pop(sequence, None)
        return 0

    def copy(self, source: int, target: int, length: int) -> int:
        _ = self.pointer
        if not self.can_copy:  # the state of a whole text can't be had of its beginning
            return 0
        lib.llama_memory_seq_cp(self._memory, source, target, 0, length)  # shares the cells
        return length

    def _cut(self, sequence: int, length: int) -> bool:
        # Snapshots of a recurrent state reach back over the last batch only, its first token excepted.
        if not self._model.keeps_all_positions and (
            not self._rollback or length <= self._last_position.get(sequence, 0)
        ):
            return False
        return bool(lib.llama_memory_seq_rm(self._memory, sequence, length, -1))

    def _keep_checkpoint(self, feed: Feed) -> None:
        """Save the state that a rejected draft goes back to, where nothing else can take it back."""
        if self._model.keeps_all_positions:
            return
        if feed.draft == 0:
            self._checkpoints.pop(feed.sequence, None)
            return
        if self._rollback >= feed.draft and feed.draft < len(feed.tokens):
            return
        if feed.position > 0 and (feed.draft < len(feed.tokens) or feed.sequence not in self._checkpoints):
            size = int(lib.llama_state_seq_get_size_ext(self.pointer, feed.sequence, _PARTIAL))
            state = (ctypes.c_uint8 * size)()
            written = lib.llama_state_seq_get_data_ext(self.pointer, state, size, feed.sequence, _PARTIAL)
            if written == size:
                self._checkpoints[feed.sequence] = _Checkpoint(feed.position, bytes(state))

    def _restore(self, sequence: int, checkpoint: _Checkpoint) -> bool:
        size = len(checkpoint.state)
        state = (ctypes.c_uint8 * size).from_buffer_copy(checkpoint.state)
        if lib.llama_state_seq_set_data_ext(self.pointer, state, size, sequence, _PARTIAL) != size:
            return False
        # The state of a hybrid model's attention layers is not in the checkpoint: those are cut.
        return bool(lib.llama_memory_seq_rm(self._memory, sequence, checkpoint.length, -1))

    def _check(self, feeds: Sequence[Feed], total: int, rows: int) -> None:
        """llama.cpp asserts on these, which would end the process."""
        if not 0 < total <= self.batch_size:
            raise DecodeError(f"A batch of {total} tokens; this context takes 1 to {self.batch_size}.")
        if rows > self.max_rows:
            raise DecodeError(f"A batch with {rows} logits rows; this context gives {self.max_rows}.")
        for feed in feeds:
            if feed.position + len(feed.tokens) > self.context_size:
                raise ContextError(
                    f"Token {feed.position + len(feed.tokens)} does not fit a context of {self.context_size}."
                )
            if min(feed.tokens) < 0 or max(feed.tokens) >= self.vocab_size:
                raise DecodeError(f"A token id outside of the vocabulary of {self.vocab_size}.")

    def close(self) -> None:
        """Free the KV cache and buffers. A second call does nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer:
            # Freeing reads the model: where that was closed first, a leak is better.
            with suppress(ClosedError):
                _ = self._model.pointer
                lib.llama_free(pointer)


class _Batch:
    """A `llama_batch` over NumPy arrays, which are filled without a foreign call."""

    def __init__(self, capacity: int) -> None:
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        self._one_each = np.ones(capacity, np.int32)
        start, step = self._sequences.ctypes.data, self._sequences.itemsize
        self._sequence_pointers = start + step * np.arange(capacity, dtype=np.uintp)
        self.struct = lib.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, lib.llama_token),
            embd=None,
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._one_each, ctypes.c_int32),
            seq_id=_pointer(self._sequence_pointers, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self._wanted, ctypes.c_int8),
        )

    def fill(self, feeds: Sequence[Feed]) -> None:
        at = 0
        for feed in feeds:
            unwanted = len(feed.tokens) - feed.rows
            for index, token in enumerate(feed.tokens):
                self._tokens[at] = token
                self._positions[at] = feed.position + index
                self._sequences[at] = feed.sequence
                self._wanted[at] = index >= unwanted
                at += 1
        self.struct.n_tokens = at


class _Logits:
    """NumPy views of the library's logits buffer, made anew only when it has moved or is too short."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._address = 0
        self._rows: NDArray[np.float32] = np.empty((0, vocab_size), np.float32)

    def view(self, pointer: Any, rows: int) -> Row:
        address = ctypes.addressof(pointer.contents)
        if address != self._address or rows > len(self._rows):
            buffer: Any = (ctypes.c_float * (rows * self._vocab_size)).from_address(address)
            self._rows = np.frombuffer(buffer, np.float32).reshape(rows, self._vocab_size)
            self._address = address
        return self._rows[:rows]


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
