"""A tiny LFM2: a hybrid whose short convolutions llama.cpp can roll back by snapshots (`n_rs_seq`)."""

from pathlib import Path

import numpy as np
from gguf_files import VOCAB, Vocab, _Model


def tiny_lfm2(path: Path, *, seed: int = 0, vocab: Vocab = VOCAB, layers: int = 2, embd: int = 64) -> Path:
    """Even layers are convolutions, odd ones have attention."""
    heads, kv_heads = 4, 2
    model = _Model(path, "lfm2", vocab, seed, 0.0)
    writer = model.writer
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(embd)
    writer.add_feed_forward_length(2 * embd)
    writer.add_head_count(heads)
    writer.add_head_count_kv([kv_heads if block % 2 else 0 for block in range(layers)])
    writer.add_vocab_size(len(vocab.texts))
    writer.add_shortconv_l_cache(3)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    model.matrix("token_embd.weight", len(vocab.texts), embd, np.sqrt(embd))
    model.vector("token_embd_norm.weight", np.ones(embd))
    model.matrix("output.weight", len(vocab.texts), embd, 4.0)
    for block in range(layers):
        model.vector(f"blk.{block}.attn_norm.weight", np.ones(embd))
        if block % 2:
            model.attention(block, embd, heads, kv_heads)
            for part in ("q", "k"):
                model.vector(f"blk.{block}.attn_{part}_norm.weight", np.ones(embd // heads))
        else:
            model.matrix(f"blk.{block}.shortconv.conv.weight", embd, 3, exact=True)
            model.matrix(f"blk.{block}.shortconv.in_proj.weight", 3 * embd, embd)
            model.matrix(f"blk.{block}.shortconv.out_proj.weight", embd, embd)
        model.feed_forward(block, embd, 2 * embd)
    return model.finish()
