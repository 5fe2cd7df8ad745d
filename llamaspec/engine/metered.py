"""A backend whose decodes are timed: where prices come from."""

import time
from collections.abc import Callable, Sequence

from llamaspec.control.prices import MAX_WIDTH, Curve
from llamaspec.decode.ports import Backend, Feed, Row


class Metered:
    """A `Backend` that tells what each decode of it took.

    `each` learns from those that give a row for every sequence alone, `all_rows` from those that give one
    for every token; prompts, which are neither or too wide, teach nothing.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        all_rows: Curve,
        each: Curve | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend = backend
        self._all_rows = all_rows
        self._each = each
        self._clock = clock
        self.vocab_size = backend.vocab_size
        self.context_size = backend.context_size
        self.can_copy = backend.can_copy
        self.cells = backend.cells
        self.batch_size = backend.batch_size
        self.max_rows = backend.max_rows

    def decode(self, feeds: Sequence[Feed]) -> list[Row]:
        started = self._clock()
        rows = self._backend.decode(feeds)
        seconds = self._clock() - started
        tokens = sum(len(feed.tokens) for feed in feeds)
        if tokens <= MAX_WIDTH:
            depth = max(feed.position for feed in feeds)
            wanted = sum(feed.rows for feed in feeds)
            if self._each is not None and wanted == len(feeds):
                self._each.observe(tokens, depth, seconds)
            elif wanted == tokens:
                self._all_rows.observe(tokens, depth, seconds)
        return rows

    def truncate(self, sequence: int, length: int) -> int:
        return self._backend.truncate(sequence, length)

    def copy(self, source: int, target: int, length: int) -> int:
        return self._backend.copy(source, target, length)
