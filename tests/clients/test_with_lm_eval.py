"""lm-eval's class for local completions, with the server's own tokenizer."""

import math
from typing import Any

import pytest
from client_help import COUNTED, PATIENCE, Served, client_library

completions = client_library("lm_eval.models.openai_completions")
instance = client_library("lm_eval.api.instance")
pytestmark = pytest.mark.model

DAYS = "Monday, Tuesday, Wednesday,"


@pytest.fixture(params=[{}, {"batch_size": 2}, {"num_concurrent": 3}], ids=str)
def lm(request: pytest.FixtureRequest, served: Served):
    lm = completions.LocalCompletionsAPI(
        model=served.model,
        base_url=f"{served.openai_url}/completions",
        tokenizer_backend="remote",
        max_retries=1,
        timeout=PATIENCE,
        **request.param,
    )
    yield lm
    lm.tokenizer.session.close()


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    return [instance.Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


def test_tokenizer(lm) -> None:
    assert lm.tokenizer.decode(lm.tok_encode(DAYS)) == DAYS
    assert lm.eos_string == "<|im_end|>"
    assert lm.tokenizer.decode([lm.eot_token_id]) == lm.eos_string
    assert lm.prefix_token_id == lm.tokenizer.bos_token_id


def test_loglikelihood(lm) -> None:
    pairs = [(DAYS, " Thursday"), (DAYS, " banana"), ("1, 2, 3,", " 4, 5"), ("", "Hello")]
    told = lm.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True)
    thursday, banana, four_five, hello = told
    assert thursday[1] is True
    assert -1.0 < thursday[0] <= 0.0
    assert banana[1] is False
    assert banana[0] < thursday[0] - 5.0
    assert four_five[1] is True
    assert -1.0 < four_five[0] <= 0.0
    assert hello[0] < 0.0


def test_loglikelihood_rolling(lm) -> None:
    counted, spoilt = lm.loglikelihood_rolling(
        requests("loglikelihood_rolling", (COUNTED,), (COUNTED.replace("7", "tea"),)), disable_tqdm=True
    )
    assert -math.inf < spoilt < counted < 0.0


def test_generate_until(lm) -> None:
    pairs = [
        ("1, 2, 3, 4,", {"until": [" 8"], "max_gen_toks": 20}),
        (DAYS, {"until": ["\n"], "max_gen_toks": 4, "temperature": 0.0}),
    ]
    counted, days = lm.generate_until(requests("generate_until", *pairs), disable_tqdm=True)
    assert counted == " 5, 6, 7,"
    assert days.startswith(" Thursday")


def test_what_is_generated_is_what_is_likely(lm) -> None:
    prompt = "def add(a, b):\n    return"
    ((generated,),) = [
        lm.generate_until(
            requests("generate_until", (prompt, {"until": ["\n"], "max_gen_toks": 6})), disable_tqdm=True
        )
    ]
    ((logprob, greedy),) = lm.loglikelihood(requests("loglikelihood", (prompt, generated)), disable_tqdm=True)
    assert greedy
    assert logprob <= 0.0
