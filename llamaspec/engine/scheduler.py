"""What goes into the next main batch: a pure policy over plain numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

_FIRST_CHUNK = 64
_CHUNK_SECONDS = 0.5


@dataclass(slots=True)
class PromptPacer:
    """Sizes prompt chunks so that evaluating one takes about half a second.

    A chunk bounds how long a cancel waits, and how long others wait for their next token. The first
    is small; the next follow the speed that was measured.
    """

    chunk: int = _FIRST_CHUNK

    def measured(self, tokens: int, seconds: float) -> None:
        """`tokens` prompt tokens took `seconds`; small remainders say little and are ignored."""
        if seconds > 0 and tokens >= _FIRST_CHUNK:
            affordable = int(tokens / seconds * _CHUNK_SECONDS)
            self.chunk = max(_FIRST_CHUNK, min(affordable, self.chunk * 4))


def share_batch(batch_size: int, widths: Iterable[int], prompts: Iterable[int], chunk: int) -> list[int]:
    """Tokens of each waiting prompt for the next batch.

    `widths` are what the decoding sequences take of `batch_size`, always granted whole; `prompts` the
    remaining lengths, served first come first, `chunk` tokens in all.
    """
    room = min(max(0, batch_size - sum(widths)), chunk)
    shares = []
    for remaining in prompts:
        share = min(remaining, room)
        room -= share
        shares.append(share)
    return shares
