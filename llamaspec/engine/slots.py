"""Which sequence of the KV caches a text gets, and what of an earlier text it takes over.

A slot is one sequence of the backends: empty, running, or *kept*: holding the text of a request that has
ended, for one that begins alike. Kept ones are given up by least recent use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Run in `slot`, whose first `common` tokens are those of the slot `source`, which may be itself.

    `whole`: these are all that it held. `given_up`: the slot held another text, of which nothing is used in
    place.
    """

    slot: int
    common: int
    source: int
    given_up: bool = False
    whole: bool = False


class Slots:
    """The table of slots. It decides; whoever owns the backends does what it says."""

    def __init__(self, count: int) -> None:
        self._empty = list(range(count))
        self._kept: dict[int, list[int]] = {}  # the least recently used first

    @property
    def kept_tokens(self) -> int:
        return sum(map(len, self._kept.values()))

    def place(self, prompt: Sequence[int], running: Mapping[int, Sequence[int]], *, reuse: bool) -> Place:
        """A slot for a text; one must be available. `running`: what other slots hold of their texts.

        The last token of a prompt is never taken over: its row of logits is wanted.
        """
        source, common = -1, 0
        for slot, text in (*self._kept.items(), *running.items()) if reuse else ():
            same = common_prefix(prompt[:-1], text)
            if same > common:
                source, common = slot, same
        # A text that goes on is taken over where it is; one that only begins alike is worth keeping.
        if source in self._kept and (2 * common >= len(self._kept[source]) or not self._others(source)):
            whole = common == len(self._kept.pop(source))
            return Place(source, common, source, whole=whole)
        if source in self._kept:
            self._kept[source] = self._kept.pop(source)  # it is of use: the latest
        if self._empty:
            return Place(self._empty.pop(0), common, source)
        slot = next(slot for slot in self._kept if slot != source)
        del self._kept[slot]
        return Place(slot, common, source, given_up=True)

    def _others(self, slot: int) -> bool:
        return bool(self._empty) or len(self._kept) > (slot in self._kept)

    def keep(self, slot: int, text: Sequence[int]) -> None:
        """The request in the slot has ended, and its text stays."""
        self._kept[slot] = list(text)

    def free(self, slot: int) -> None:
        """The slot holds nothing any more."""
        self._empty.append(slot)

    def give_up(self) -> int | None:
        """Drop the text that was kept for the longest: its slot, which is to be emptied and freed."""
        if not self._kept:
            return None
        slot = next(iter(self._kept))
        del self._kept[slot]
        return slot


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of what two texts have in common at their beginning."""
    low, high = 0, min(len(first), len(second))
    one, other = list(first[:high]), list(second[:high])
    while low < high:  # whole slices are compared in no time
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
