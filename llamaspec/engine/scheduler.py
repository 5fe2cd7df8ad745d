"""What goes into the next main batch: a pure policy over plain numbers."""

from collections.abc import Iterable


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
