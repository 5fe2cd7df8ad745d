"""Sequences in the slots of the KV caches: what they take over, what they leave behind, who makes room."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from llamaspec.decode.ports import Backend
from llamaspec.decode.sequence import Sequence
from llamaspec.engine.drafting import Drafting
from llamaspec.engine.slots import Slots


class Seating:
    """Does to the main model's KV cache, and through `drafting` to the drafters', what `Slots` decides."""

    def __init__(self, main: Backend, drafting: Drafting, count: int) -> None:
        self._main = main
        self._drafting = drafting
        self._slots = Slots(count)

    @property
    def kept_tokens(self) -> int:
        """Tokens of texts that have ended."""
        return self._slots.kept_tokens

    def take(self, sequence: Sequence, running: Iterable[Sequence]) -> None:
        """Give a slot to a sequence, with what other texts have in common with its own."""
        held = {s.slot: s.tokens[: s.held] for s in running}
        place = self._slots.place(sequence.tokens, held, reuse=sequence.request.reuses)
        sequence.slot = place.slot
        if place.given_up:
            self._empty(place.slot)
        if place.source == place.slot:
            sequence.held = place.common if place.whole else self._main.truncate(place.slot, place.common)
        elif place.common:
            sequence.held = self._main.copy(place.source, place.slot, place.common)
        self._drafting.begin(place)

    def leave(self, sequence: Sequence, *, keep: bool) -> None:
        """Take the slot back; with `keep` its text stays in the cache."""
        slot, held = sequence.slot, sequence.held
        if slot < 0:
            return
        sequence.slot = -1
        if keep and held:
            self._slots.keep(slot, sequence.tokens[:held])
        else:
            self._empty(slot)
            self._slots.free(slot)
            sequence.held = 0

    def make_room(self, most: int) -> None:
        """Give up kept texts until they are `most` tokens in all."""
        while self.kept_tokens > most and (slot := self._slots.give_up()) is not None:
            self._empty(slot)
            self._slots.free(slot)

    @contextmanager
    def borrowed(self) -> Iterator[int]:
        """An empty slot for the main model alone, while nothing is running."""
        self.make_room(0)
        slot = self._slots.place((), {}, reuse=False).slot
        try:
            yield slot
        finally:
            self._main.truncate(slot, 0)
            self._slots.free(slot)

    def _empty(self, slot: int) -> None:
        self._main.truncate(slot, 0)
        self._drafting.forget(slot)
