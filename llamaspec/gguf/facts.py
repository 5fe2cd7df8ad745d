"""What a header tells about a model: for showing it, and for fitting it into memory."""

import re
from collections import Counter
from dataclasses import dataclass, field

from llamaspec.errors import UsageError
from llamaspec.gguf.header import Header
from llamaspec.gguf.hparams import STATE_TENSOR, STATEFUL_WITHOUT_NAME, read_hyperparameters
from llamaspec.gguf.types import FILE_TYPES, TYPES_BY_NAME
from llamaspec.gguf.vocab import read_vocabulary

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_KEYS = re.compile(r"attn_(k|kv|k_b|kv_[ab].*)\.weight|attn_kv_a_mqa\.weight")
_FUSED_KEYS = re.compile(r"attn_qkv\.weight")


@dataclass(frozen=True)
class ModelFacts:
    """`layer_bytes`: the weights of each layer; `other_bytes`: input, output and what else is in no layer.

    `attention_layers` says of each layer whether it keeps keys and values. `recurrent`: none does, all of
    the past is a state of fixed size; `hybrid`: some do. `window` is the sliding window of those layers
    that have one, in tokens; 0 for none.
    """

    architecture: str
    name: str | None
    licence: str | None
    quantisation: str
    parameters: int
    file_bytes: int
    layers: int
    context_train: int
    embedding: int
    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    vocab_size: int
    recurrent: bool
    hybrid: bool
    window: int
    chat_template: str | None = field(repr=False)
    layer_bytes: tuple[int, ...] = field(repr=False)
    other_bytes: int
    attention_layers: tuple[bool, ...] = field(repr=False)
    layer_kv_heads: tuple[int, ...] = field(repr=False)

    def kv_bytes_per_token(self, type_k: str = "f16", type_v: str = "f16") -> tuple[int, ...]:
        """Bytes of keys and values that each layer keeps for a token; 0 for layers without attention.

        An upper bound where llama.cpp stores less (shared or latent keys and values).
        """
        sizes = (
            _row_bytes(type_k, self.key_length * heads) + _row_bytes(type_v, self.value_length * heads)
            for heads in self.layer_kv_heads
        )
        return tuple(
            size if attends else 0 for size, attends in zip(sizes, self.attention_layers, strict=True)
        )


def _row_bytes(type_name: str, elements: int) -> int:
    kind = TYPES_BY_NAME.get(type_name.upper())
    if kind is None:
        raise UsageError(f"There is no cache type {type_name}.")
    return kind.bytes_for(-(-elements // kind.block) * kind.block)


def describe(header: Header) -> ModelFacts:
    """The facts of a model whose header is sound. Errors: as `check_model`."""
    hparams = read_hyperparameters(header)
    layer_bytes = [0] * hparams.layers
    other_bytes = 0
    parts: list[set[str]] = [set() for _ in range(hparams.layers)]
    stateful = [False] * hparams.layers
    for tensor in header.tensors:
        match = _BLOCK.fullmatch(tensor.name)
        if match and int(match[1]) < hparams.layers:
            layer = int(match[1])
            layer_bytes[layer] += tensor.bytes
            parts[layer].add(match[2])
            stateful[layer] |= bool(STATE_TENSOR.match(tensor.name))
        else:
            other_bytes += tensor.bytes
    attends = tuple(
        bool(kv_heads) and layer < hparams.layers - hparams.extra_layers and _has_keys(names, state)
        for layer, (kv_heads, names, state) in enumerate(zip(hparams.kv_heads, parts, stateful, strict=True))
    )
    return ModelFacts(
        architecture=hparams.architecture,
        name=header.text("general.name"),
        licence=header.text("general.license.name") or header.text("general.license"),
        quantisation=_quantisation(header),
        parameters=sum(tensor.elements for tensor in header.tensors),
        file_bytes=header.file_bytes,
        layers=hparams.layers,
        context_train=hparams.context,
        embedding=hparams.embedding,
        heads=max(hparams.heads),
        kv_heads=max(hparams.kv_heads),
        key_length=hparams.key_length,
        value_length=hparams.value_length,
        vocab_size=read_vocabulary(header).size,
        recurrent=any(stateful) and not any(attends),
        hybrid=(any(stateful) and any(attends)) or hparams.architecture in STATEFUL_WITHOUT_NAME,
        window=hparams.window,
        chat_template=header.text("tokenizer.chat_template"),
        layer_bytes=tuple(layer_bytes),
        other_bytes=other_bytes,
        attention_layers=attends,
        layer_kv_heads=hparams.kv_heads,
    )


def _has_keys(names: set[str], stateful: bool) -> bool:
    """Fused queries, keys and values belong to a recurrence where the layer has a state of its own."""
    return any(_KEYS.fullmatch(name) or (not stateful and _FUSED_KEYS.fullmatch(name)) for name in names)


def _quantisation(header: Header) -> str:
    """The file's own word, or the format that holds the most parameters."""
    said = FILE_TYPES.get(header.integer("general.file_type") or 0)
    if said and "general.file_type" in header.values:
        return said
    held: Counter[str] = Counter()
    for tensor in header.tensors:
        held[tensor.type.name] += tensor.elements
    return held.most_common(1)[0][0] if held else "none"
