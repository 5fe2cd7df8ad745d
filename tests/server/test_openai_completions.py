"""/v1/completions over a tiny model."""

from collections.abc import Iterator
from typing import Any

import pytest
from openai_app import TEXT, complete, refusal, streamed, tiny_service

from llamaspec.server.service import Limits, Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_service(tmp_path_factory.mktemp("models")) as served:
        yield served


def ids(service: Service, text: str) -> list[int]:
    return service.session.loaded.main.tokenize(text)


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def test_a_prompt_may_be_text_or_tokens_and_there_may_be_several(service: Service) -> None:
    greedy = {"temperature": 0, "max_tokens": 6}
    answer = complete(service, "the hen", **greedy)
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    [text] = texts(answer)
    assert texts(complete(service, ids(service, "the hen"), **greedy)) == [text]
    both = complete(service, ["the hen", "a rat"], **greedy)
    assert texts(both)[0] == text
    assert texts(complete(service, [ids(service, "the hen"), ids(service, "a rat")], **greedy)) == texts(both)
    assert both["usage"]["prompt_tokens"] == len(ids(service, "the hen")) + len(ids(service, "a rat"))


def test_choices_of_several_prompts_are_numbered_on(service: Service) -> None:
    answer = complete(service, ["the", "hen"], n=2, best_of=2, max_tokens=4, echo=True)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [text[:3] for text in texts(answer)] == ["the", "the", "hen", "hen"]
    chunks = streamed(service, TEXT, prompt=["the", "hen"], n=2, max_tokens=4, echo=True)
    spoken = dict.fromkeys(range(4), "")
    for chunk in chunks:
        for choice in chunk["choices"]:
            spoken[choice["index"]] += choice["text"]
    assert [text[:3] for text in spoken.values()] == ["the", "the", "hen", "hen"]


def test_best_of_keeps_the_most_probable(service: Service) -> None:
    asked = {"seed": 3, "temperature": 2.0, "max_tokens": 5, "logprobs": 0}
    each = complete(service, "the", n=4, **asked)["choices"]

    def mean(choice: dict[str, Any]) -> float:
        told = choice["logprobs"]["token_logprobs"]
        return sum(told) / len(told)

    best = complete(service, "the", n=2, best_of=4, **asked)
    ranked = sorted(each, key=mean, reverse=True)
    assert texts(best) == [choice["text"] for choice in ranked[:2]]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert best["usage"]["completion_tokens"] == 20
    unasked = complete(service, "the", n=1, best_of=4, **{**asked, "logprobs": None})
    assert texts(unasked) == texts(best)[:1]
    assert unasked["choices"][0]["logprobs"] is None


def test_echo_tells_the_log_probabilities_of_the_prompt(service: Service) -> None:
    prompt = ids(service, "the hen: 7 Äpfel")
    [choice] = complete(service, [prompt], echo=True, logprobs=1, max_tokens=1, ignore_eos=True)["choices"]
    told = choice["logprobs"]
    assert {name: len(values) for name, values in told.items()} == dict.fromkeys(
        ("tokens", "token_logprobs", "top_logprobs", "text_offset"), len(prompt) + 1
    )
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None
    for logprob, top in zip(told["token_logprobs"][1:], told["top_logprobs"][1:], strict=True):
        assert logprob in top.values()
        assert 1 <= len(top) <= 2
    assert choice["text"].startswith("the hen: 7 Äpfel")
    whole = [(t, at) for t, at in zip(told["tokens"], told["text_offset"], strict=True) if t[:6] != "bytes:"]
    assert all(choice["text"][at:].startswith(token) for token, at in whole)


def test_prompts_are_judged_as_answers_are(service: Service) -> None:
    """What the model writes greedily is, as a prompt, its most probable token everywhere."""
    greedy = {"temperature": 0, "logprobs": 1, "ignore_eos": True}
    prompt = ids(service, "the hen")
    [written] = complete(service, prompt, max_tokens=8, **greedy)["choices"]
    details = complete(service, prompt, max_tokens=8, token_details=True, **greedy)["choices"][0]
    longer = [*prompt, *(detail["id"] for detail in details["token_details"])]
    [read] = complete(service, longer, max_tokens=0, echo=True, **greedy)["choices"]
    told = read["logprobs"]["token_logprobs"][len(prompt) :]
    assert told == pytest.approx(written["logprobs"]["token_logprobs"], abs=1e-3)
    for logprob, top in zip(told, read["logprobs"]["top_logprobs"][len(prompt) :], strict=True):
        assert logprob == max(top.values())


def test_nothing_is_generated_where_nothing_is_asked_for(service: Service) -> None:
    answer = complete(service, "the hen", max_tokens=0, echo=True)
    assert texts(answer) == ["the hen"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("logprobs", [None, 2])
def test_a_stream_says_the_same_as_a_whole_answer(service: Service, logprobs: int | None) -> None:
    asked = {"prompt": "the hen", "seed": 4, "max_tokens": 8, "echo": True, "logprobs": logprobs}
    [whole] = complete(service, **asked)["choices"]
    choices = [chunk["choices"][0] for chunk in streamed(service, TEXT, **asked)]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    assert choices[-1]["finish_reason"] == whole["finish_reason"] == "length"
    if logprobs is None:
        assert whole["logprobs"] is None
    else:
        for name, values in whole["logprobs"].items():
            told = [v for choice in choices if choice["logprobs"] for v in choice["logprobs"][name]]
            assert told == (pytest.approx(values, abs=1e-3) if name == "token_logprobs" else told)
            assert len(told) == len(values)


def test_a_biased_token_is_all_there_is_or_never_there(service: Service) -> None:
    [token] = ids(service, "x")
    only = complete(service, "the", logit_bias={str(token): 100}, max_tokens=4)
    assert texts(only) == ["xxxx"]
    banned = complete(service, "the", logit_bias={str(token): -100}, grammar="root ::= [xy]", max_tokens=4)
    assert texts(banned) == ["y"]


def test_more_than_may_be_asked_for_at_once(tmp_path: Any) -> None:
    limits = Limits(max_n=2, max_prompts=3, max_waiting=2)
    with tiny_service(tmp_path, limits=limits) as service:
        assert refusal(service, TEXT, {"prompt": "a", "n": 3})["param"] == "n"
        assert refusal(service, TEXT, {"prompt": "a", "best_of": 3})["param"] == "best_of"
        assert refusal(service, TEXT, {"prompt": ["a"] * 4})["param"] == "prompt"
        assert refusal(service, TEXT, {"prompt": ["a"] * 3, "n": 2})["param"] == "n"
        assert len(complete(service, ["a"] * 2, n=2, max_tokens=1)["choices"]) == 4
