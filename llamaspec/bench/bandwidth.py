"""How fast memory can be read here by as many threads as decoding uses."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np

from llamaspec.native.devices import available_memory

_MOST_BYTES = 1 << 30  # no cache holds that
_SECONDS = 1.0
_LEAST_ROUNDS = 5


def read_bandwidth(threads: int, most_bytes: int = _MOST_BYTES) -> float:
    """Bytes per second, the best of the passes of a second."""
    best, rounds, end = 0.0, 0, time.monotonic() + _SECONDS
    for bandwidth in passes(threads, most_bytes):
        best, rounds = max(best, bandwidth), rounds + 1
        if rounds >= _LEAST_ROUNDS and time.monotonic() >= end:
            break
    return best


def passes(threads: int, most_bytes: int = _MOST_BYTES) -> Iterator[float]:
    """Bytes per second of one pass after the other over a block that no cache holds, without end.

    Decoding reads each weight once and writes next to nothing. So does the largest of an array of
    32-bit integers, which NumPy finds with vector instructions on all processors and without holding Python's
    lock. Each thread reads what it has written itself: on machines with several memory nodes that is near to
    it.
    """
    whole = min(most_bytes, available_memory() // 4)
    each = max(1, whole // threads // 4)
    with ExitStack() as stack:
        hands = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(threads)]
        writing = [hand.submit(np.ones, each, np.int32) for hand in hands]
        blocks = [written.result() for written in writing]
        while True:
            started = time.perf_counter()
            for reading in [hand.submit(np.max, block) for hand, block in zip(hands, blocks, strict=True)]:
                reading.result()
            yield 4 * each * threads / (time.perf_counter() - started)
