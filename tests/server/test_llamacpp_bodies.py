"""What bodies of llama-server's API mean, and which values are refused."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from llamaspec.errors import LlamaspecError
from llamaspec.server.fields import Inert
from llamaspec.server.llamacpp_bodies import CompletionBody, InfillBody, PromptObject, TokenizeBody
from llamaspec.server.llamacpp_completion import prompts_of


def body(**fields: Any) -> CompletionBody:
    return CompletionBody.model_validate({"prompt": "once", **fields})


def test_the_defaults_of_what_is_not_there_are_taken() -> None:
    assert body(**Inert().model_dump()) == body()


@pytest.mark.parametrize(
    "field",
    [
        {"mirostat": 2},
        {"dry_multiplier": 0.8},
        {"xtc_probability": 0.5},
        {"typical_p": 0.9},
        {"typ_p": 0.9},
        {"top_n_sigma": 1.0},
        {"dynatemp_range": 0.5},
        {"adaptive_target": 0.3},
        {"min_keep": 1},
        {"n_indent": 4},
        {"n_discard": 3},
        {"post_sampling_probs": True, "json_schema": {}},
        {"post_sampling_probs": True, "grammar": 'root ::= "a"'},
        {"return_progress": True},
        {"logit_bias": {"\ud800": 1}},
        {"logit_bias": [["\ud800", 1]]},
        {"logit_bias": {"9" * 5000: 1}},
        {"lora": [{"id": 0, "scale": 1.0}]},
        {"grammar_lazy": True},
        {"id_slot": -2},
        {"n_predict": -2},
        {"n_probs": 101},
        {"logit_bias": {"5": True}},
        {"logit_bias": [[5, math.inf]]},
        {"logit_bias": [[-1, 1.0]]},
        {"t_max_predict_ms": -2},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": [True]},
        {"prompt": [-1]},
        {"prompt": {"prompt_string": "a", "multimodal_data": ["iVBO"]}},
        {"unheard_of": 1},
        {"samplers": ["infill"]},
        {"samplers": ["temperature", "top_k"]},
        {"samplers": ["top_k", "top_k"]},
        {"n_predict": 3, "max_tokens": 4},
        {"grammar": 'root ::= "a"', "json_schema": {}},
    ],
    ids=str,
)
def test_what_would_have_no_effect_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        body(**field)


def test_null_is_as_good_as_absence() -> None:
    assert body(n_predict=None, mirostat=None, grammar=None, samplers=None) == body()


@pytest.mark.parametrize("name", ["n_predict", "max_tokens", "max_completion_tokens"])
def test_every_name_of_the_limit(name: str) -> None:
    assert body(**{name: 7}).overrides()["sampling"]["n_predict"] == 7
    assert "n_predict" not in body().overrides()["sampling"]


def test_samplers_that_are_left_out_are_off() -> None:
    sampling = body(samplers=["top_k", "typ_p", "top_p"], top_p=0.5, min_p=0.3, temperature=0.0).overrides()
    assert sampling["sampling"] == {
        "top_p": 0.5,
        "min_p": 0.0,
        "temperature": 1.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def test_all_samplers_change_nothing() -> None:
    known = ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
    assert body(samplers=known).overrides() == body().overrides()


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("a", 1),
        ({"prompt_string": "a"}, 1),
        ([1, 2, 3], 1),
        ([1, "a", 2], 1),
        (["a"], 1),
        (["a", "b"], 2),
        ([[1, 2], "b", [3, "c"], {"prompt_string": "d"}], 4),
    ],
)
def test_prompts_that_a_body_has(prompt: Any, count: int) -> None:
    assert len(prompts_of(body(prompt=prompt).prompt)) == count


def test_a_prompt_in_an_object_is_its_text() -> None:
    [prompt] = prompts_of(body(prompt={"prompt_string": "a"}).prompt)
    assert isinstance(prompt, PromptObject)
    assert prompt.prompt_string == "a"


def test_token_ids_beside_lists_are_no_prompts() -> None:
    with pytest.raises(LlamaspecError):
        prompts_of(body(prompt=[1, [2, 3]]).prompt)


@pytest.mark.parametrize("extra", [{}, {"filename": "a"}, {"filename": 1, "text": "b"}, {"text": 3}])
def test_extra_files_need_a_text(extra: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InfillBody.model_validate({"input_prefix": "a", "input_suffix": "b", "input_extra": [extra]})


def test_one_text_is_tokenised_at_a_time() -> None:
    with pytest.raises(ValidationError):
        TokenizeBody.model_validate({"content": "a", "prompt": "b"})
