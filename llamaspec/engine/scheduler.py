"""What goes into the next main batch: policies over plain numbers."""

from collections.abc import Iterable

_FIRST_READING = 8  # tokens, while nobody knows what they cost
_GAIN = 0.25
_GROWTH = 2.0
_LOOK_AFTER = 8  # rounds with reading


def share_batch(batch_size: int, widths: Iterable[int], prompts: Iterable[int], chunk: int) -> list[int]:
    """Tokens of each waiting prompt for the next batch.

    `widths` are what the decoding sequences take of `batch_size`, always granted whole; `prompts` the
    remaining lengths, `chunk` tokens in all. The first has a right to a quarter of them, and is read however
    many come after it; beyond that the shortest goes first, which is answered soonest.
    """
    remaining = list(prompts)
    room = min(max(0, batch_size - sum(widths)), chunk)
    shares = [0] * len(remaining)
    if remaining and room:
        shares[0] = min(remaining[0], max(1, room // 4))
        room -= shares[0]
    for place in sorted(range(len(remaining)), key=remaining.__getitem__):
        share = min(remaining[place] - shares[place], room)
        shares[place] += share
        room -= share
    return shares


class ReadingPace:
    """How much of a prompt to read beside sequences that decode, which have to wait for it.

    As many tokens as stretch a round by `stretch` of what it takes without them, one at least. What a
    token takes is learnt from the rounds themselves: by it, a GPU reads hundreds and a laptop a few.
    """

    def __init__(self, most: int, stretch: float) -> None:
        self._most = most
        self._stretch = stretch
        self._usual = 0.0
        self._each = 0.0
        self._last = _FIRST_READING / _GROWTH
        self._in_a_row = 0
        self._granted = 0

    def tokens(self, round_seconds: float) -> int:
        """Tokens to read in the next round, where one without reading takes so long."""
        wanted = self._stretch * round_seconds / self._each if self._each else _FIRST_READING
        self._granted = max(1, min(self._most, int(min(wanted, _GROWTH * self._last))))
        return self._granted

    def learn(self, tokens: int, seconds: float) -> None:
        """A round, or the part of it that reads, took so long; `tokens` were read in it, possibly none."""
        self._in_a_row = self._in_a_row + 1 if tokens else 0
        if not tokens:
            self._usual += _GAIN * (seconds - self._usual) if self._usual else seconds
        elif self._usual and 2 * tokens > self._granted:  # the ends of prompts tell little
            self._last = tokens
            each = max(0.01 * self._usual, seconds - self._usual) / tokens
            self._each += _GAIN * (each - self._each) if self._each else each

    @property
    def due(self) -> bool:
        """Whether it is time to see what a round without reading takes: machines slow down and recover."""
        return self._in_a_row >= _LOOK_AFTER

    @property
    def usual(self) -> float:
        """Seconds without reading; 0 where that was not seen yet."""
        return self._usual
