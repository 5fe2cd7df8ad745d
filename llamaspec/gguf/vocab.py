"""The vocabulary of a model file, with the defaults that llama.cpp fills in."""

from dataclasses import dataclass, field

from llamaspec.errors import UnsupportedModelError
from llamaspec.gguf.header import Header, shown

NO_TOKEN = 0xFFFFFFFF  # some converters write -1 for "none"
MAX_TOKENS = 1 << 22

# `tokenizer.ggml.model` → the vocabulary's type, and the ids of BOS and EOS where no key says them.
_TYPES: dict[str, tuple[str, int | None, int | None]] = {
    "llama": ("SPM", 1, 2),
    "gpt2": ("BPE", 11, 11),
    "gemma4": ("BPE", None, None),
    "hybriddna": ("BPE", 11, 11),
    "whitespace": ("BPE", 11, 11),
    "rwkv": ("RWKV", None, None),
    "plamo2": ("PLaMo2", 1, 2),
}
_ADD_BOS_PRE = frozenset(
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken chameleon".split()
)
_ALWAYS_ADD_BOS_PRE = frozenset(["gemma4", "granite-embed-multi-311m"])


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in id order, as stored (byte-level BPE texts are in that encoding's alphabet).

    `bos` and `eos` are None where the model has none; `add_bos` and `add_eos` say whether
    tokenising a text puts them around it.
    """

    type: str
    texts: list[bytes] = field(repr=False)
    bos: int | None
    eos: int | None
    add_bos: bool
    add_eos: bool

    @property
    def size(self) -> int:
        return len(self.texts)


def read_vocabulary(header: Header) -> Vocabulary:
    """The vocabulary of a generative model.

    Errors: UnsupportedModelError where there is none, or one that only encoders have; CorruptGGUFError.
    """
    model = header.text("tokenizer.ggml.model")
    if model is None or model in ("none", "no_vocab"):
        raise UnsupportedModelError(
            f"{header.path.name} has no vocabulary, so it can't read or write text.",
            "Use the GGUF file of a text generation model.",
        )
    if model not in _TYPES:
        raise UnsupportedModelError(
            f"{header.path.name} has a vocabulary of type {shown(model)}, which no supported text generator has.",
            "Use the GGUF file of a text generation model.",
        )
    kind, bos, eos = _TYPES[model]
    texts = header.strings("tokenizer.ggml.tokens")
    if not texts:
        raise header.corrupt("has no tokens in its vocabulary")
    if len(texts) > MAX_TOKENS:
        raise header.corrupt(f"has {len(texts)} tokens in its vocabulary, above the limit of {MAX_TOKENS}")
    pre = model if model == "gemma4" else header.text("tokenizer.ggml.pre") or ""
    add_bos = kind == "SPM" or (kind == "BPE" and pre in _ADD_BOS_PRE)
    said = header.flag("tokenizer.ggml.add_bos_token")
    add_bos = add_bos if said is None else said
    return Vocabulary(
        type=kind,
        texts=texts,
        bos=_special(header, "bos", bos, len(texts)),
        eos=_special(header, "eos", eos, len(texts)),
        add_bos=add_bos or (kind == "BPE" and pre in _ALWAYS_ADD_BOS_PRE),
        add_eos=bool(header.flag("tokenizer.ggml.add_eos_token")),
    )


def _special(header: Header, name: str, default: int | None, size: int) -> int | None:
    token = header.integer(f"tokenizer.ggml.{name}_token_id")
    if token is not None and 0 <= token < size:
        return token
    return default if default is not None and default < size else None
