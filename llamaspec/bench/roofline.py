"""The bytes that a token makes the machine read, and the speed that memory would allow if that were all.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model": decoding one token
does little arithmetic for each byte, so that memory is its roof.
"""

import re
from collections.abc import Mapping

from llamaspec.bench.report import Roofline
from llamaspec.gguf.facts import ModelFacts
from llamaspec.gguf.header import Header

# Tables of which a token looks one row up.
_LOOKED_UP = re.compile(r"(token_embd|per_layer_token_embd|position_embd|token_types)\.")
_EXPERTS = re.compile(r"blk\.\d+\.ffn_.*_exps\.")


def bytes_per_token(
    header: Header, facts: ModelFacts, depth: int, type_k: str = "f16", type_v: str = "f16"
) -> int:
    """Weights that one token passes through, and the keys and values of `depth` tokens before it.

    Of a mixture those experts count that a token takes. A sliding window is not known by layer: for models
    that have one it is an upper bound.
    """
    tied = not any(tensor.name == "output.weight" for tensor in header.tensors)
    experts = header.integer(f"{facts.architecture}.expert_count") or 0
    active = header.integer(f"{facts.architecture}.expert_used_count") or 0
    share = active / experts if 0 < active <= experts else 1.0
    weights = 0.0
    for tensor in header.tensors:
        if _EXPERTS.match(tensor.name):
            weights += tensor.bytes * share
        elif not _LOOKED_UP.match(tensor.name) or (tied and tensor.name == "token_embd.weight"):
            weights += tensor.bytes
    return int(weights) + depth * sum(facts.kv_bytes_per_token(type_k, type_v))


def roofline(bandwidth: float, touched: int, speeds: Mapping[str, float]) -> Roofline:
    """`bandwidth` in bytes per second, `touched` bytes per token, speeds in tokens per second by setting."""
    limit = bandwidth / touched
    return Roofline(
        bandwidth=bandwidth,
        bytes_per_token=touched,
        limit=limit,
        fractions={name: speed / limit for name, speed in speeds.items()},
    )
