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
# `tokenizer.ggml.pre` for which BOS is added where no key says whether.
_ADD_BOS_PRE = (
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken chameleon"
)
_ALWAYS_ADD_BOS_PRE = ("gemma4", "granite-embed-multi-311m")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in id order, as stored (byte-level BPE texts are in that encoding's alphabet), except that
    texts end at a zero byte and empty ones have a name, as in llama.cpp.

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
    model = header.text("tokenizer.ggml.model") or "none"
    if model not in _TYPES:
        has = "no vocabulary" if model in ("none", "no_vocab") else f"a vocabulary of type {shown(model)}"
        raise UnsupportedModelError(
            f"{header.path.name} has {has}, so it can't generate text here.",
            "Use the GGUF file of a text generation model.",
        )
    kind, bos, eos = _TYPES[model]
    texts = header.strings("tokenizer.ggml.tokens")
    if not texts:
        raise header.corrupt("has no tokens in its vocabulary")
    if len(texts) > MAX_TOKENS:
        raise header.corrupt(f"has {len(texts)} tokens in its vocabulary, above the limit of {MAX_TOKENS}")
    if any(not text or b"\0" in text for text in texts):
        texts = [_as_in_llama_cpp(token, text) for token, text in enumerate(texts)]
    pre = model if model == "gemma4" else header.text("tokenizer.ggml.pre") or ""
    add_bos = kind == "SPM" or (kind == "BPE" and pre in _ADD_BOS_PRE.split())
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


def _as_in_llama_cpp(token: int, text: bytes) -> bytes:
    return text.partition(b"\0")[0] or b"[EMPTY_%d]" % token


def _special(header: Header, name: str, default: int | None, size: int) -> int | None:
    token = header.integer(f"tokenizer.ggml.{name}_token_id")
    if token is not None and 0 <= token < size:
        return token
    return default if default is not None and default < size else None
