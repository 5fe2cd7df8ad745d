"""Measures plain decoding of one model, and how fast this machine reads memory meanwhile. Run as

    python -m llamaspec.doctor.speed_child MODEL

by `doctor.speed`, not imported: it prints one line of JSON.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median

import psutil

from llamaspec.errors import LlamaspecError

_PROMPT = "The lighthouse keeper counted the ships on the horizon, and wrote their number in a book:"
_SECONDS = 3.0
_TOKENS = 256
_FEWEST = 2
_BLOCK = 1 << 29  # bytes: hardly a cache holds that, and to make it takes a part of a second


@dataclass(frozen=True, slots=True)
class Measured:
    """`speed` in tokens per second; for each `token_bytes` are read; `bandwidth` is what the memory gives in
    bytes per second to the `threads` that decode. `others`: the share of the processor that other programs
    took just before.
    """

    speed: float
    token_bytes: int
    bandwidth: float
    threads: int
    gpu_layers: int
    others: float


def measure(path: str) -> Measured:
    from llamaspec.bench.bandwidth import read_bandwidth
    from llamaspec.bench.roofline import bytes_per_token
    from llamaspec.gguf.shards import read_model
    from llamaspec.session import load

    others = psutil.cpu_percent(interval=0.5) / 100
    with load(
        main=path, settings={"speculation": {"mode": "off"}, "runtime": {"ctx_size": 2 * _TOKENS}}
    ) as session:
        greedy = {"sampling": {"temperature": 0.0, "n_predict": _TOKENS, "ignore_eos": True}}
        request = session.request(_PROMPT, settings=greedy)
        end = time.monotonic() + _SECONDS

        def is_enough() -> bool:
            return time.monotonic() > end and len(session.stats.latencies) >= _FEWEST

        for _text in session.generate(request, is_enough):
            pass
        threads, layers = session.loaded.chosen["threads"], session.loaded.chosen["gpu_layers"]
        depth = session.stats.prompt_tokens + session.stats.predicted_tokens // 2
        facts = session.loaded.main_facts
        return Measured(
            speed=1 / median(session.stats.latencies),
            token_bytes=bytes_per_token(read_model(session.files[0].path), facts, depth),
            bandwidth=read_bandwidth(threads, _BLOCK),
            threads=threads,
            gpu_layers=layers,
            others=others,
        )


def main() -> None:
    try:
        answer = asdict(measure(sys.argv[1]))
    except LlamaspecError as error:
        answer = {"error": error.message, "hint": error.hint}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
