"""What sampling the draft, in place of taking its best token, is worth on the real pair."""

import numpy as np
import pytest

from llamaspec.decode.ports import Feed
from llamaspec.decode.sampling import Sampler, probability
from llamaspec.native.context import Context, ContextOptions
from llamaspec.native.model import Model
from llamaspec.settings import SamplingSettings

pytestmark = pytest.mark.model

PROMPT = "<|im_start|>user\nWhat should I see in Lisbon in two days?<|im_end|>\n<|im_start|>assistant\n"


def test_sampled_drafts_are_accepted_more_often_than_best_ones(pair) -> None:
    """Expected acceptance of a token at each place of a sampled answer, exact given the place."""
    settings = SamplingSettings(temperature=0.8, top_k=40, top_p=0.95, min_p=0.0)
    sampler = Sampler(settings, seed=5)
    options = ContextOptions(512, max_rows=64, threads=2, threads_batch=2)
    with (
        Model(pair.main) as main,
        Model(pair.draft) as draft,
        Context(main, options) as main_context,
        Context(draft, options) as draft_context,
    ):
        tokens = main.tokenize(PROMPT)
        asked = len(tokens)
        [rows] = main_context.decode([Feed(0, tokens, 0, rows=1)])
        for _ in range(60):
            tokens.append(sampler.choose(rows[-1], tokens))
            [rows] = main_context.decode([Feed(0, tokens[-1:], len(tokens) - 1, rows=1)])
        main_context.truncate(0, 0)
        places = len(tokens) - asked
        [p_rows] = main_context.decode([Feed(0, tokens, 0, rows=places)])
        [q_rows] = draft_context.decode([Feed(0, tokens, 0, rows=places)])
        sampled, best = [], []
        for p_row, q_row in zip(p_rows, q_rows, strict=True):
            p, q = sampler.distribution(p_row, ()), sampler.distribution(q_row, ())
            sampled.append(sum(min(probability(p, t), probability(q, t)) for t in q.ids.tolist()))
            best.append(probability(p, int(q.ids[0])))
    assert np.mean(sampled) > np.mean(best)
