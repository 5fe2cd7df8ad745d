"""Tiny GGUF models that llama.cpp really loads: seeded random weights, a few hundred kilobytes.

    tiny_llama   an ordinary transformer (llama; qwen2 with `arch`), also as a draft: `noise` moves the
                 weights of the same seed a little, so that its guesses are often right
    tiny_mamba   recurrent: its state can't be truncated
    tiny_jamba   hybrid: one recurrent layer and one attention layer, alternating

All share `VOCAB`, a byte-level BPE vocabulary in which any text has tokens. `load_in_child` loads files
in another process, so that a crash of llama.cpp is a result and not the end of the tests.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np

_MARK = "outcome: "
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level BPE: itself if printable, else from 256 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(spare)) for byte in range(256)]


@dataclass(frozen=True)
class Vocab:
    """Tokens in id order; `control` ones are special; `merges` as GGUF writes them."""

    texts: tuple[str, ...]
    merges: tuple[str, ...]
    control: frozenset[str]

    @property
    def eos(self) -> int:
        return self.texts.index("<|im_end|>")

    @property
    def bos(self) -> int:
        return self.texts.index("<|endoftext|>")

    def differing_at(self, token: int, text: str) -> "Vocab":
        return replace(self, texts=(*self.texts[:token], text, *self.texts[token + 1 :]))

    def longer_by(self, count: int) -> "Vocab":
        return replace(self, texts=(*self.texts, *(f"<|extra_{number}|>" for number in range(count))))


def _vocab() -> Vocab:
    space = _byte_alphabet()[0x20]
    pairs = ["t h", "th e", "i n", "e r", "a n", "o n", "r e", "an d", "in g", "t o", "o r", "e s", "a t"]
    pairs += [f"{space} {letter}" for letter in "abcdefghilmnoprstw"] + [
        f"{space}t he",
        f"{space}a nd",
        f"{space}t o",
    ]
    merged = tuple(pair.replace(" ", "") for pair in pairs)
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    texts = (*_byte_alphabet(), *dict.fromkeys(merged), *special)
    return Vocab(texts, tuple(pairs), frozenset(special))


VOCAB = _vocab()


class _Model:
    """A GGUF file being written, with the random numbers of its weights."""

    def __init__(self, path: Path, arch: str, vocab: Vocab, seed: int, noise: float) -> None:
        self.path = path
        self.writer = gguf.GGUFWriter(path, arch)
        self._random = np.random.default_rng(seed)
        self._noise = noise
        self._noise_random = np.random.default_rng([seed, 1])
        self.writer.add_name(f"tiny {arch}")
        self.writer.add_license("apache-2.0")
        self.writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        self.writer.add_tokenizer_model("gpt2")
        self.writer.add_tokenizer_pre("gpt-2")
        self.writer.add_token_list(list(vocab.texts))
        self.writer.add_token_types(
            [
                gguf.TokenType.CONTROL if text in vocab.control else gguf.TokenType.NORMAL
                for text in vocab.texts
            ]
        )
        self.writer.add_token_merges(list(vocab.merges))
        self.writer.add_bos_token_id(vocab.bos)
        self.writer.add_eos_token_id(vocab.eos)
        self.writer.add_add_bos_token(False)
        self.writer.add_chat_template(CHAT_TEMPLATE)

    def matrix(self, name: str, rows: int, columns: int, scale: float = 1.0, *, exact: bool = False) -> None:
        """Normal weights that keep the size of what they multiply; 32-bit floats if `exact`."""
        weights = self._random.standard_normal((rows, columns))
        weights += self._noise * self._noise_random.standard_normal((rows, columns))
        weights *= scale / np.sqrt(columns)
        self.writer.add_tensor(name, weights.astype(np.float32 if exact else np.float16))

    def vector(self, name: str, values: np.ndarray) -> None:
        self.writer.add_tensor(name, values.astype(np.float32))

    def ends(self, vocab: Vocab, embd: int) -> None:
        """Token embeddings, the last norm and the output matrix: sharp enough to have clear winners."""
        self.matrix("token_embd.weight", len(vocab.texts), embd, np.sqrt(embd))
        self.vector("output_norm.weight", np.ones(embd))
        self.matrix("output.weight", len(vocab.texts), embd, 4.0)

    def attention(self, block: int, embd: int, heads: int, kv_heads: int, *, bias: bool = False) -> None:
        head = embd // heads
        for name, rows in (("q", embd), ("k", head * kv_heads), ("v", head * kv_heads)):
            self.matrix(f"blk.{block}.attn_{name}.weight", rows, embd)
            if bias:
                self.vector(f"blk.{block}.attn_{name}.bias", np.zeros(rows))
        self.matrix(f"blk.{block}.attn_output.weight", embd, embd)

    def feed_forward(self, block: int, embd: int, ff: int) -> None:
        self.vector(f"blk.{block}.ffn_norm.weight", np.ones(embd))
        self.matrix(f"blk.{block}.ffn_gate.weight", ff, embd)
        self.matrix(f"blk.{block}.ffn_up.weight", ff, embd)
        self.matrix(f"blk.{block}.ffn_down.weight", embd, ff)

    def state_space(self, block: int, embd: int, state: int, conv: int, rank: int, *, norms: bool) -> None:
        inner = 2 * embd
        name = f"blk.{block}.ssm_"
        self.matrix(name + "in.weight", 2 * inner, embd)
        self.matrix(name + "conv1d.weight", inner, conv, exact=True)
        self.vector(name + "conv1d.bias", np.zeros(inner))
        self.matrix(name + "x.weight", rank + 2 * state, inner)
        self.matrix(name + "dt.weight", inner, rank)
        self.vector(name + "dt.bias", np.full(inner, -2.0))
        self.vector(name + "a", -np.tile(np.arange(1.0, state + 1), (inner, 1)))
        self.vector(name + "d", np.ones(inner))
        self.matrix(name + "out.weight", embd, inner)
        if norms:
            for part, size in (("dt", rank), ("b", state), ("c", state)):
                self.vector(f"{name}{part}_norm.weight", np.ones(size))

    def finish(self) -> Path:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        return self.path


def tiny_llama(
    path: Path,
    *,
    seed: int = 0,
    vocab: Vocab = VOCAB,
    layers: int = 2,
    embd: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    context: int = 512,
    noise: float = 0.0,
    arch: str = "llama",
) -> Path:
    """A transformer. `noise` is relative to the weights, which are otherwise those of `seed`."""
    model = _Model(path, arch, vocab, seed, noise)
    writer = model.writer
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(embd)
    writer.add_feed_forward_length(2 * embd)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(embd // heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    model.ends(vocab, embd)
    for block in range(layers):
        model.vector(f"blk.{block}.attn_norm.weight", np.ones(embd))
        model.attention(block, embd, heads, kv_heads, bias=arch == "qwen2")
        model.feed_forward(block, embd, 2 * embd)
    return model.finish()


def tiny_mamba(path: Path, *, seed: int = 0, vocab: Vocab = VOCAB, layers: int = 2, embd: int = 64) -> Path:
    """A recurrent model (Mamba)."""
    model = _Model(path, "mamba", vocab, seed, 0.0)
    writer = model.writer
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(embd)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_layer_norm_rms_eps(1e-5)
    _add_state_space(writer, embd)
    model.ends(vocab, embd)
    for block in range(layers):
        model.vector(f"blk.{block}.attn_norm.weight", np.ones(embd))
        model.state_space(block, embd, state=16, conv=4, rank=4, norms=False)
    return model.finish()


def tiny_jamba(path: Path, *, seed: int = 0, vocab: Vocab = VOCAB, layers: int = 2, embd: int = 64) -> Path:
    """A hybrid model (Jamba): even layers are recurrent, odd ones have attention."""
    heads, kv_heads = 4, 2
    model = _Model(path, "jamba", vocab, seed, 0.0)
    writer = model.writer
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(embd)
    writer.add_feed_forward_length(2 * embd)
    writer.add_head_count(heads)
    writer.add_head_count_kv([kv_heads if block % 2 else 0 for block in range(layers)])
    writer.add_layer_norm_rms_eps(1e-5)
    _add_state_space(writer, embd)
    model.ends(vocab, embd)
    for block in range(layers):
        model.vector(f"blk.{block}.attn_norm.weight", np.ones(embd))
        if block % 2:
            model.attention(block, embd, heads, kv_heads)
        else:
            model.state_space(block, embd, state=16, conv=4, rank=4, norms=True)
        model.feed_forward(block, embd, 2 * embd)
    return model.finish()


def _add_state_space(writer: gguf.GGUFWriter, embd: int) -> None:
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(2 * embd)
    writer.add_ssm_state_size(16)
    writer.add_ssm_time_step_rank(4)


@dataclass(frozen=True)
class Loaded:
    """`outcome`: decoded, refused (llama.cpp said no) or crashed (it took the process with it)."""

    path: Path
    outcome: str
    detail: str = ""


def load_in_child(paths: Iterable[Path], seconds: float = 60.0) -> list[Loaded]:
    """Load each file in another process, tokenise a text and decode it and two more tokens.

    One process does them all; after a crash the next one goes on with the file that follows.
    """
    todo, results = list(paths), []
    while todo:
        done, crash = _run_child(todo, seconds)
        results += done
        todo = todo[len(done) :]
        if todo and crash:
            results.append(Loaded(todo.pop(0), "crashed", crash))
    return results


def _run_child(paths: Sequence[Path], seconds: float) -> tuple[list[Loaded], str]:
    command = [sys.executable, str(Path(__file__).resolve())]
    names = "\n".join(map(str, paths)).encode()
    try:
        # Without it a debugger's output would hide the assertion that failed.
        environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
        child = subprocess.run(
            command, input=names, env=environment, capture_output=True, timeout=seconds, check=False
        )
        output, code, errors = child.stdout, f"exit code {child.returncode}", child.stderr
    except subprocess.TimeoutExpired as expired:
        output, code, errors = expired.stdout or b"", f"no end after {seconds} s", expired.stderr or b""
    # llama.cpp may print on its own account, so only marked lines count.
    lines = output.decode("utf-8", "replace").splitlines()
    done = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
    last = errors.decode("utf-8", "replace").strip().splitlines()[-1:]
    crash = "" if len(done) == len(paths) else ": ".join([code, *last])
    return [Loaded(path, outcome) for path, outcome in zip(paths, done, strict=False)], crash


def _load(path: Path) -> str:
    import ctypes

    import llama_cpp.llama_cpp as llama

    parameters = llama.llama_model_default_params()
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        return "refused"
    settings = llama.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 64
    settings.n_threads = settings.n_threads_batch = 1
    context = llama.llama_init_from_model(model, settings)
    try:
        if not context:
            return "refused"
        text = "the hen: 7 Äpfel\n".encode()
        vocab = llama.llama_model_get_vocab(model)
        tokens = (llama.llama_token * 64)()
        count = llama.llama_tokenize(vocab, text, len(text), tokens, 60, True, True)
        if count <= 0:
            return "refused"
        batch = llama.llama_batch_get_one(tokens, count)
        for _ in range(3):
            if llama.llama_decode(context, batch) != 0:
                return "refused"
            logits = llama.llama_get_logits_ith(context, -1)
            row = np.ctypeslib.as_array(logits, shape=(llama.llama_vocab_n_tokens(vocab),))
            token = int(row.argmax())
            piece = ctypes.create_string_buffer(256)
            llama.llama_token_to_piece(vocab, token, piece, 256, 0, True)
            tokens[0] = token
            batch = llama.llama_batch_get_one(tokens, 1)
        return "decoded"
    finally:
        if context:
            llama.llama_free(context)
        llama.llama_model_free(model)


def _child() -> None:
    for path in sys.stdin.buffer.read().decode().split("\n"):
        outcome = _load(Path(path))
        print(f"\n{_MARK}{outcome}", flush=True)


if __name__ == "__main__":
    _child()
