"""What tells more than an answer: the prompt, its progress, slots and names; and what can be switched off."""

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest
from gguf_files import tiny_llama
from openai_app import CHAT, HELLO, TEXT, answered, ask, chat, complete, refusal, streamed, tiny_service
from test_llamacpp_routes import chunks

import llamaspec
from llamaspec.errors import UsageError
from llamaspec.server.service import Service, ServiceOptions

NATIVE = "/completion"
PROMPT = "the hen and the"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_service(tmp_path_factory.mktemp("models")) as service:
        yield service


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with names, that tells its prompts and nothing of slots and metrics."""
    main = tiny_llama(tmp_path_factory.mktemp("models") / "main.gguf")
    runtime = {"threads": 1, "ctx_size": 256, "device": "cpu"}
    settings: dict[str, dict[str, Any]] = {"runtime": runtime, "sampling": {"n_predict": 4}}
    session = llamaspec.load(main=str(main), settings=settings, parallel=1)
    options = ServiceOptions(("first", "other"), slots=False, metrics=False, verbose=True)
    with Service(session, options=options) as service:
        yield service


def test_the_prompt_is_told_to_whom_asks(service: Service) -> None:
    assert "__verbose" not in chat(service, max_tokens=2)
    answer = chat(service, max_tokens=2, verbose=True, speculative={"mode": "off"})
    prompt = ask(service, "/apply-template", {"messages": HELLO}).json()["prompt"]
    verbose = answer["__verbose"]
    assert verbose["prompt"].endswith(prompt)
    assert verbose["tokens_evaluated"] == answer["usage"]["prompt_tokens"]
    assert verbose["tokens_predicted"] == 2
    assert verbose["generation_settings"]["n_predict"] == 2
    assert verbose["generation_settings"]["speculation"]["mode"] == "off"
    assert complete(service, PROMPT, max_tokens=2, verbose=True)["__verbose"]["prompt"].endswith(PROMPT)
    last = streamed(service, CHAT, max_tokens=2, verbose=True)
    assert ["__verbose" in chunk for chunk in last] == [False] * (len(last) - 1) + [True]
    assert "hen" in answered(service, NATIVE, {"prompt": PROMPT, "verbose": True})["prompt"]


def test_progress_in_streams(service: Service) -> None:
    long = [{"role": "user", "content": "the hen and the egg " * 12}]
    asked: dict[str, Any] = {"max_tokens": 3, "return_progress": True, "timings_per_token": True}
    of_chat = streamed(service, CHAT, messages=long, **asked)
    of_text = streamed(service, TEXT, prompt=long[0]["content"], **asked)
    body = {"prompt": long[0]["content"], "stream": True, **asked}
    of_llama_server = chunks(ask(service, NATIVE, body))
    for told in (of_chat, of_text, of_llama_server):
        progress = [chunk["prompt_progress"] for chunk in told if "prompt_progress" in chunk]
        assert len(progress) > 1
        assert progress[0]["processed"] == progress[0]["cache"] < progress[0]["total"]
        assert progress[-1]["processed"] == progress[-1]["total"]
        first = next(chunk["timings"] for chunk in told if "prompt_progress" in chunk)
        assert (first["prompt_n"], first["prompt_ms"], first["predicted_n"]) == (0, 0.0, 0)
        assert told[-1]["timings"]["predicted_n"] == 3
    for body in ({"messages": HELLO}, {"prompt": PROMPT}):
        path = CHAT if "messages" in body else TEXT
        assert refusal(service, path, {**body, "return_progress": True})["param"] == "return_progress"


def test_a_slot_can_be_chosen(service: Service) -> None:
    async def look() -> list[bool]:
        prompt = await service.tokenize(PROMPT)
        settings = {"sampling": {"n_predict": -1, "ignore_eos": True}}
        request = service.session.prepare(prompt, settings=settings, seat=1)
        async with await service.start(request, kind="test") as ticket:
            async for _ in ticket:
                return [slot is not None for slot in service.slots()]
        raise AssertionError

    assert asyncio.run(look()) == [False, True]
    answers = ask(service, NATIVE, {"prompt": PROMPT, "n_predict": 2, "id_slot": 1, "n": 3}).json()
    assert [each["id_slot"] for each in answers] == [1, 1, 1]
    assert len(chat(service, max_tokens=2, n=2, id_slot=0)["choices"]) == 2
    assert "slot 2" in refusal(service, NATIVE, {"prompt": PROMPT, "id_slot": 2})["message"]


def test_probabilities_after_sampling(service: Service) -> None:
    body = {"prompt": PROMPT, "n_predict": 6, "n_probs": 5, "temperature": 1.0, "post_sampling_probs": True}
    answer = answered(service, NATIVE, body)
    assert answer["generation_settings"]["post_sampling_probs"] is True
    assert len(answer["completion_probabilities"]) == answer["tokens_predicted"]
    for each in answer["completion_probabilities"]:
        assert 0.0 < each["prob"] <= 1.0
        assert not {"logprob", "top_logprobs"} & each.keys()
        known = [other["prob"] for other in each["top_probs"]]
        assert known == sorted(known, reverse=True) and min(known) > 0.0
        assert len(known) == 5 or math.isclose(sum(known), 1.0)


def test_a_prompt_that_does_not_fit_is_told_in_figures(service: Service) -> None:
    error = refusal(service, NATIVE, {"prompt": [5] * 600})
    assert error["type"] == "exceed_context_size_error"
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (600, 512)
    beyond = refusal(service, TEXT, {"prompt": "a" * 40_000})
    assert beyond["n_ctx"] == 512 and "n_prompt_tokens" not in beyond


def test_texts_are_bounded_by_their_sum(service: Service) -> None:
    texts = ["a" * 1000] * 60
    for path, name in (("/tokenize", "content"), (NATIVE, "prompt")):
        error = refusal(service, path, {name: [5, *texts]})
        assert error["code"] == "context_length_exceeded"
    assert refusal(service, "/detokenize", {"tokens": [5] * 40_000})["param"] == "tokens"


def test_every_name_is_told_and_answers(told: Service) -> None:
    [model] = ask(told, "/v1/models").json()["data"]
    assert model["id"] == chat(told)["model"] == "first"
    assert model["aliases"] == ["first", "other"]
    assert ask(told, "/v1/models/other").json() == model
    assert ask(told, "/v1/models/main").status_code == 404


@pytest.mark.parametrize("path", ["/slots", "/metrics"])
def test_what_is_switched_off(told: Service, path: str) -> None:
    assert ask(told, path).status_code == 501
    props = ask(told, "/props").json()
    assert (props["endpoint_slots"], props["endpoint_metrics"]) == (False, False)


def test_a_verbose_server_tells_every_prompt(told: Service) -> None:
    assert "Hello" in chat(told)["__verbose"]["prompt"]


@pytest.mark.parametrize("names", [("",), ("a", ""), ("a", "a")])
def test_names_that_can_not_be_told_apart(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        ServiceOptions(names)


def test_parts_of_a_beginning_are_paragraphs(service: Service) -> None:
    parts = [{"type": "text", "text": "the hen"}, {"type": "text", "text": "and"}]
    messages = [*HELLO, {"role": "assistant", "content": parts}]
    prompt = ask(service, "/apply-template", {"messages": messages}).json()["prompt"]
    assert prompt.endswith("the hen\n\nand")


def test_an_answer_is_counted_before_its_client_has_it(service: Service) -> None:
    def predicted() -> float:
        lines = ask(service, "/metrics").text.splitlines()
        [line] = [line for line in lines if line.startswith("llamacpp:tokens_predicted_total ")]
        return float(line.split()[1])

    for _ in range(5):
        before = predicted()
        told = answered(service, NATIVE, {"prompt": PROMPT, "n_predict": 3})
        assert predicted() - before == told["tokens_predicted"] == 3
