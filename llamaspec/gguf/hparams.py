"""The hyperparameters of a model file, per layer where they can differ by layer."""

import re
from dataclasses import dataclass

from llamaspec.errors import UnsupportedModelError
from llamaspec.gguf.header import Array, Header, shown

MAX_LAYERS = 512
# Weights of layers that keep a state of fixed size instead of keys and values, or beside them.
STATE_TENSOR = re.compile(r"blk\.\d+\.(ssm|shortconv|time_mix)[._]")
# Hybrid architectures in which the weights of such layers are named like attention.
STATEFUL_WITHOUT_NAME = ("minimax-01", "deepseek4")
# Heads and head sizes are multiplied in 32 bits: a larger product would wrap around to a plausible one.
MAX_HEADS = MAX_HEAD_SIZE = (1 << 16) - 1


@dataclass(frozen=True)
class Hyperparameters:
    """Sizes that a model's own keys claim, already within bounds.

    `layers` counts the `extra_layers` at the end too: they predict further tokens, and plain decoding skips
    them. `heads` and `kv_heads` have one entry per layer; 0 key-value heads mean a layer without attention.
    """

    architecture: str
    layers: int
    extra_layers: int
    context: int
    embedding: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    window: int


def read_hyperparameters(header: Header) -> Hyperparameters:
    """Errors: CorruptGGUFError for sizes that are missing, zero or absurd; UnsupportedModelError."""
    arch = header.text("general.architecture")
    if not arch:
        raise header.corrupt("does not name an architecture")
    if f"{arch}.block_count" not in header.values:
        raise UnsupportedModelError(
            f"{header.path.name} has no layers of its architecture {shown(arch)}: it is no language model.",
            "Use the GGUF file of a text generation model.",
        )
    layers = _size(header, f"{arch}.block_count", 1, MAX_LAYERS)
    embedding = _size(header, f"{arch}.embedding_length", 1, 1 << 20)
    heads = _per_layer(header, f"{arch}.attention.head_count", layers) or (0,) * layers
    kv_heads = _per_layer(header, f"{arch}.attention.head_count_kv", layers) or heads
    head_size = embedding // heads[0] if heads[0] else 0
    return Hyperparameters(
        architecture=arch,
        layers=layers,
        extra_layers=_size(header, f"{arch}.nextn_predict_layers", 0, layers - 1, 0),
        context=_size(header, f"{arch}.context_length", 1, (1 << 31) - 1),
        embedding=embedding,
        heads=heads,
        kv_heads=kv_heads,
        key_length=_size(header, f"{arch}.attention.key_length", 1, MAX_HEAD_SIZE, head_size),
        value_length=_size(header, f"{arch}.attention.value_length", 1, MAX_HEAD_SIZE, head_size),
        window=_size(header, f"{arch}.attention.sliding_window", 0, (1 << 31) - 1, 0),
    )


def _size(header: Header, key: str, least: int, most: int, default: int | None = None) -> int:
    value = header.integer(key)
    if value is None:
        if default is None:
            raise header.corrupt(f"lacks the key {shown(key)}")
        return default
    if not least <= value <= most:
        raise header.corrupt(f"has {value} in its key {shown(key)}, which must be {least} to {most}")
    return value


def _per_layer(header: Header, key: str, layers: int) -> tuple[int, ...]:
    """One number for all layers, or an array of one each; empty where the key is not there."""
    value = header.values.get(key)
    if value is None:
        return ()
    if not isinstance(value, Array):
        return (_size(header, key, 0, MAX_HEADS),) * layers
    if value.is_strings or value.count != layers:
        raise header.corrupt(f"has no number for each of its {layers} layers in its key {shown(key)}")
    numbers = tuple(int(number) for number in value.numbers())
    if any(not 0 <= number <= MAX_HEADS for number in numbers):
        raise header.corrupt(f"has a number out of bounds in its key {shown(key)}")
    return numbers
