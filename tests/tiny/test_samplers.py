"""llama.cpp's own samplers as a second opinion on ours."""

import ctypes
import math
from collections.abc import Sequence

import numpy as np
import pytest
from llama_cpp import llama_cpp as lib

from llamaspec.decode.ports import Row
from llamaspec.decode.sampling import Sampler
from llamaspec.settings import SamplingSettings


def llama_cpp_distribution(row: Row, options: SamplingSettings, history: Sequence[int]) -> dict[int, float]:
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for sampler in (
        lib.llama_sampler_init_penalties(
            row.size,
            len(history) if options.repeat_last_n < 0 else options.repeat_last_n,
            options.repeat_penalty,
            options.frequency_penalty,
            options.presence_penalty,
        ),
        lib.llama_sampler_init_top_k(options.top_k),
        lib.llama_sampler_init_top_p(options.top_p, 1),
        lib.llama_sampler_init_min_p(options.min_p, 1),
        lib.llama_sampler_init_temp(options.temperature),
    ):
        lib.llama_sampler_chain_add(chain, sampler)
    for token in history:
        lib.llama_sampler_accept(chain, token)
    data = (lib.llama_token_data * row.size)(*((i, float(v), 0.0) for i, v in enumerate(row)))
    array = lib.llama_token_data_array(data=data, size=row.size, selected=-1, sorted=False)
    lib.llama_sampler_apply(chain, ctypes.byref(array))
    left = [(array.data[i].id, array.data[i].logit) for i in range(array.size)]
    lib.llama_sampler_free(chain)
    best = max(logit for _, logit in left)
    weights = {token: math.exp(logit - best) for token, logit in left if logit > -math.inf}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


@pytest.mark.parametrize("seed", range(60))
def test_samplers_agree_with_those_of_llama_cpp(seed: int) -> None:
    random = np.random.default_rng(seed)
    row = (random.standard_normal(random.integers(30, 1500)) * random.choice([0.5, 2, 6])).astype(np.float32)
    history = random.integers(0, min(40, row.size), random.integers(0, 90)).tolist()
    options = SamplingSettings(
        temperature=float(random.choice([0.3, 0.8, 1.0, 1.7])),
        top_k=int(random.choice([0, 5, 40, 3000])),
        top_p=float(random.choice([1.0, 0.95, 0.5])),
        min_p=float(random.choice([0.0, 0.05, 0.3])),
        repeat_penalty=float(random.choice([1.0, 1.1, 0.9])),
        repeat_last_n=int(random.choice([-1, 0, 8, 64])),
        presence_penalty=float(random.choice([0.0, 0.5])),
        frequency_penalty=float(random.choice([0.0, 0.2, -0.1])),
    )
    ours = Sampler(options, 0).distribution(row, history)
    theirs = llama_cpp_distribution(row, options, history)
    assert set(ours.ids.tolist()) == set(theirs)
    for token, p in zip(ours.ids.tolist(), ours.probs.tolist(), strict=True):
        assert p == pytest.approx(theirs[token], rel=1e-4)
