"""Refuse, before llama.cpp sees a file, what it would abort the process on.

llama.cpp answers much that is wrong with a message, but some things with an assertion that ends the
process: counts that it divides by, sizes that wrap around in 32 bits, types that no kernel takes,
vocabularies with holes. Each check below states such a rule in general terms; none is exhaustive
for every architecture.
"""

import math
import re
from collections import Counter

from llamaspec.errors import UnsupportedModelError
from llamaspec.gguf.header import Array, Header, Tensor, shown
from llamaspec.gguf.hparams import (
    STATE_TENSOR,
    STATEFUL_WITHOUT_NAME,
    Hyperparameters,
    read_hyperparameters,
)
from llamaspec.gguf.vocab import NO_TOKEN, Vocabulary, read_vocabulary

MAX_EXPERTS = 1024
MAX_HPARAM = (1 << 31) - 1

_NOT_GENERATIVE = re.compile(
    r"clip|.*bert(-.*)?|t5|t5encoder|gemma-embedding|llama-embed|wavtokenizer-dec|pockettts|"
    r"eagle3|dflash|gemma4-assistant"
)
# Architectures whose graph asserts that a head's keys, values and rotated dimensions have one size.
_WHOLE_HEAD_ROTARY = """
    apertus arcee arctic baichuan chameleon codeshell cogvlm dbrx deci deepseek dots1 dream ernie4_5
    ernie4_5-moe exaone exaone-moe exaone4 falcon granite granitemoe grok grovemoe hunyuan-dense
    hunyuan-moe hunyuan_vl internlm2 jais2 llada llada-moe llama llama4 maincoder mellum mistral3 olmo
    olmo2 olmoe orion paddleocr pangu-embedded plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl
    qwen3vlmoe rnd1 seed_oss smallthinker smollm3 starcoder2 talkie xverse
"""
_WITHOUT_HEADS = re.compile(r"mamba2?|a?rwkv\d+(qwen2)?")
_ROPE_SCALING = frozenset(["none", "linear", "yarn", "longrope"])
# Formats of intermediate results and of whole numbers: nothing multiplies with weights stored in them.
_NOT_WEIGHTS = frozenset(["Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"])
_TOKEN_MAPS = re.compile(r"(.*\.)?(d2t|t2d|ffn_gate_tid2eid)(\.weight)?")
_EXACT_MATRICES = re.compile(
    r"blk\.\d+\.(ssm_conv1d.*|shortconv\.conv|time_mix_(first|w1|w2|decay_w[12]))\.weight"
)


def check_model(header: Header) -> None:
    """Check that a header describes a text generation model that llama.cpp can load without aborting.

    Errors: CorruptGGUFError, or UnsupportedModelError for sound files that are something else.
    """
    _check_purpose(header)
    hparams = read_hyperparameters(header)
    _check_numbers(header, hparams.architecture)
    _check_heads(header, hparams)
    _check_rotary(header, hparams)
    _check_experts(header, hparams.architecture)
    _check_state_space(header, hparams)
    vocabulary = read_vocabulary(header)
    _check_vocabulary(header, vocabulary)
    _check_tensors(header, hparams, vocabulary)


def _check_purpose(header: Header) -> None:
    kind, arch = header.text("general.type"), header.text("general.architecture") or ""
    if kind not in (None, "model"):
        what = f"is of the type {shown(kind)}, not a model"
    elif _NOT_GENERATIVE.fullmatch(arch):
        what = f"has the architecture {shown(arch)}, which does not generate text by itself"
    elif header.flag(f"{arch}.attention.causal") is False:
        what = "has attention in both directions: it embeds text, and does not generate it"
    elif header.integer(f"{arch}.pooling_type"):
        what = "pools its outputs: it embeds or ranks text, and does not generate it"
    elif not header.tensors:
        what = "has no weights"
    else:
        return
    raise UnsupportedModelError(
        f"{header.path.name} {what}.", "Use the GGUF file of a text generation model."
    )


def _check_numbers(header: Header, arch: str) -> None:
    """Every number of the architecture fits llama.cpp's 32-bit signed integers, and none is NaN."""
    for key, value in header.values.items():
        if not key.startswith(f"{arch}."):
            continue
        if isinstance(value, float):
            least = 0.0 if key.endswith("epsilon") else -math.inf
            if not (math.isfinite(value) and value >= least):
                raise header.corrupt(f"has the impossible number {value} in its key {shown(key)}")
        elif isinstance(value, int) and not -MAX_HPARAM <= value <= MAX_HPARAM:
            raise header.corrupt(f"has the absurd number {value} in its key {shown(key)}")


def _check_heads(header: Header, hparams: Hyperparameters) -> None:
    if not hparams.heads[0] and not _WITHOUT_HEADS.fullmatch(hparams.architecture):
        raise header.corrupt("has no attention heads, which its architecture needs")
    for layer, (heads, kv_heads) in enumerate(zip(hparams.heads, hparams.kv_heads, strict=True)):
        if kv_heads and (heads % kv_heads or heads < kv_heads):
            raise header.corrupt(
                f"has {heads} attention heads over {kv_heads} key-value heads in layer {layer}, "
                "which do not divide evenly"
            )
    if hparams.embedding < hparams.heads[0]:
        raise header.corrupt(f"has more attention heads than its embedding length of {hparams.embedding}")


def _check_rotary(header: Header, hparams: Hyperparameters) -> None:
    arch = hparams.architecture
    scaling = header.text(f"{arch}.rope.scaling.type")
    if scaling is not None and scaling not in _ROPE_SCALING:
        raise header.corrupt(f"names the unknown rope scaling {shown(scaling)}")
    base = header.real(f"{arch}.rope.freq_base")
    if base is not None and base <= 0:
        raise header.corrupt(f"has a rope frequency base of {base}")
    sections = header.values.get(f"{arch}.rope.dimension_sections")
    if isinstance(sections, Array) and not sections.is_strings:
        numbers = sections.numbers()
        if any(not 0 <= number <= hparams.key_length for number in numbers) or not any(numbers[:3]):
            raise header.corrupt(f"has the impossible rope sections {list(numbers[:8])}")
    if not hparams.heads[0]:
        return
    rotary = header.integer(f"{arch}.rope.dimension_count")
    if rotary is not None and (rotary % 2 or not 0 <= rotary <= hparams.key_length):
        raise header.corrupt(f"rotates {rotary} of the {hparams.key_length} dimensions of a head")
    if arch in _WHOLE_HEAD_ROTARY.split():
        sizes = {hparams.key_length, hparams.value_length, hparams.key_length if rotary is None else rotary}
        if len(sizes) > 1:
            raise header.corrupt("has heads whose keys, values and rotated dimensions are not the same size")


def _check_experts(header: Header, arch: str) -> None:
    experts = header.integer(f"{arch}.expert_count") or 0
    groups = header.integer(f"{arch}.expert_group_count") or 0
    groups_used = header.integer(f"{arch}.expert_group_used_count") or 0
    used = header.values.get(f"{arch}.expert_used_count", 0)
    most_used = max(used.numbers(), default=0) if isinstance(used, Array) and not used.is_strings else used
    if not isinstance(most_used, int):
        raise header.corrupt("does not say how many experts it uses")
    sound = 0 <= experts <= MAX_EXPERTS and (
        0 < most_used <= experts if experts else most_used == groups == 0
    )
    if groups:
        sound = sound and groups < experts
    if groups > 1:
        sound = sound and experts % groups == 0 and 0 < groups_used < groups
    if not sound:
        counts = f"{most_used} of {experts} experts and {groups_used} of {groups} groups of them"
        raise header.corrupt(f"uses {counts}, which can't be")


def _check_state_space(header: Header, hparams: Hyperparameters) -> None:
    """Bounds for recurrent layers: the convolution looks back, and no size of the state wraps around."""
    prefix = f"{hparams.architecture}.ssm."
    inner = header.integer(prefix + "inner_size")
    if inner is None:
        return
    bounds = {
        "conv_kernel": (2, 1 << 10),
        "inner_size": (1, 1 << 20),
        "state_size": (1, 1 << 12),
        "time_step_rank": (0, 1 << 16),
        "group_count": (0, 1 << 10),
    }
    for name, (least, most) in bounds.items():
        value = header.integer(prefix + name)
        if value is not None and not least <= value <= most:
            raise header.corrupt(
                f"has {value} in its key {shown(prefix + name)}, which must be {least} to {most}"
            )
    if hparams.architecture in ("jamba", "granitehybrid") and inner != 2 * hparams.embedding:
        raise header.corrupt(f"has recurrent layers {inner} wide, not twice the embedding length")


def _check_vocabulary(header: Header, vocabulary: Vocabulary) -> None:
    texts = vocabulary.texts
    distinct = set(texts)
    if len(distinct) != len(texts):
        again = Counter(texts).most_common(1)[0][0]
        raise header.corrupt(f"has the token {shown(again)} more than once in its vocabulary")
    for key in ("scores", "token_type"):
        value = header.values.get(f"tokenizer.ggml.{key}")
        if value is not None and (not isinstance(value, Array) or value.count < len(texts)):
            raise header.corrupt(f"does not have {len(texts)} {key} for as many tokens")
    for key in header.values:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            token = header.integer(key)
            if token is not None and token != NO_TOKEN and not 0 <= token < len(texts):
                raise header.corrupt(f"has {token} in its key {shown(key)}, outside its {len(texts)} tokens")
    for name, used, token in (
        ("begin", vocabulary.add_bos, vocabulary.bos),
        ("end", vocabulary.add_eos, vocabulary.eos),
    ):
        if used and token is None:
            raise header.corrupt(f"puts a token at the {name} of a text and has none for it")
    _check_byte_tokens(header, vocabulary, distinct)


def _check_byte_tokens(header: Header, vocabulary: Vocabulary, distinct: set[bytes]) -> None:
    """Where unknown text falls back to bytes, each byte has a token, or tokenising would abort."""
    if vocabulary.type not in ("SPM", "PLaMo2"):
        return
    for byte in range(256):
        spelled = b"<0x%02X>" % byte in distinct
        if not spelled and not (vocabulary.type == "SPM" and bytes([byte]) in distinct):
            raise header.corrupt(f"has no token for the byte 0x{byte:02X}")


def _check_tensors(header: Header, hparams: Hyperparameters, vocabulary: Vocabulary) -> None:
    by_name = {tensor.name: tensor for tensor in header.tensors}
    embeddings = by_name.get("token_embd.weight")
    if embeddings is None:
        raise header.corrupt("has no token embeddings")
    if embeddings.shape != (hparams.embedding, vocabulary.size):
        raise header.corrupt(
            f"has token embeddings of shape {list(embeddings.shape)} for {vocabulary.size} tokens "
            f"and an embedding length of {hparams.embedding}"
        )
    _check_attention(header, hparams, by_name)
    for tensor in header.tensors:
        if not _storable(tensor):
            raise header.corrupt(
                f"stores tensor {shown(tensor.name)} as {tensor.type.name}, which can't be run"
            )


def _check_attention(header: Header, hparams: Hyperparameters, tensors: dict[str, Tensor]) -> None:
    """Where a layer's attention is of the common kind, its matrices hold as many heads as the keys say.

    Layers with a recurrent state, or with latent or shared keys, are left to llama.cpp.
    """
    arch = hparams.architecture
    if arch in STATEFUL_WITHOUT_NAME:
        return
    key_sizes = {hparams.key_length, header.integer(f"{arch}.attention.key_length_swa")}
    value_sizes = {hparams.value_length, header.integer(f"{arch}.attention.value_length_swa")}
    stateful = {tensor.name.split(".")[1] for tensor in tensors.values() if STATE_TENSOR.match(tensor.name)}
    for layer, (heads, kv_heads) in enumerate(zip(hparams.heads, hparams.kv_heads, strict=True)):
        prefix = f"blk.{layer}.attn_"
        if not kv_heads or str(layer) in stateful or prefix + "k.weight" not in tensors:
            continue
        keys = {kv_heads * size for size in key_sizes if size}
        values = {kv_heads * size for size in value_sizes if size}
        # Some architectures keep a gate beside each query.
        queries = {gate * heads * size for size in key_sizes if size for gate in (1, 2)}
        mixed = {heads * size for size in value_sizes if size}
        for name, dimension, sizes in (
            ("k", 1, keys),
            ("v", 1, values),
            ("q", 1, queries),
            ("output", 0, mixed),
        ):
            tensor = tensors.get(f"{prefix}{name}.weight")
            if tensor and (len(tensor.shape) != 2 or tensor.shape[dimension] not in sizes):
                raise header.corrupt(
                    f"has tensor {shown(tensor.name)} of shape {list(tensor.shape)}, which does not fit "
                    f"{heads} heads and {kv_heads} key-value heads of {hparams.key_length}"
                )


def _storable(tensor: Tensor) -> bool:
    """Whether llama.cpp has kernels for a tensor of this kind in this format.

    Vectors and whatever is no plain weight matrix take part in element-wise operations: 32-bit floats only.
    """
    if _TOKEN_MAPS.fullmatch(tensor.name):
        return True
    vector = all(size == 1 for size in tensor.shape[1:])
    if vector or not tensor.name.endswith(".weight") or _EXACT_MATRICES.fullmatch(tensor.name):
        return tensor.type.name == "F32"
    return tensor.type.name not in _NOT_WEIGHTS
