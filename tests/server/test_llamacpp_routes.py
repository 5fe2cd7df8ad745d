"""llama-server's API over a tiny model: no socket, but the real engine."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gguf_files import VOCAB, tiny_llama
from openai_app import app_of, tiny_service
from openai_app import ask as ask_app

import llamaspec
from llamaspec.errors import DecodeError
from llamaspec.server.service import Limits, Service

FILL_IN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
PROJECT = ("<|repo_name|>", "<|file_sep|>")
PROMPT = "the hen and the"

Ask = Callable[..., httpx.Response]


def asking(service: Service) -> Ask:
    def answer(path: str, **body: Any) -> httpx.Response:
        """POST a body, or without one GET."""
        return ask_app(service, path, body or None)

    return answer


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    limits = Limits(max_n=3, max_prompts=4)
    with tiny_service(tmp_path_factory.mktemp("models"), limits=limits) as service:
        yield service


@pytest.fixture(scope="module")
def ask(service: Service) -> Ask:
    return asking(service)


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


def refused(response: httpx.Response, param: str | None = None, status: int = 400) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert param is None or error["param"] == param
    return str(error["message"])


def test_health(ask: Ask) -> None:
    assert ask("/health").json() == ask("/v1/health").json() == {"status": "ok"}


def test_health_after_a_failure(service: Service, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.worker, "failure", DecodeError("The device is gone."))
    assert "The device is gone." in refused(ask("/health"), status=503)


def test_props(ask: Ask) -> None:
    props = ask("/props").json()
    assert props["total_slots"] == 2
    assert props["model_path"] == "main.gguf"
    assert props["default_generation_settings"]["n_ctx"] == 512
    assert props["default_generation_settings"]["params"]["n_predict"] == 16
    assert "<|im_start|>" in props["chat_template"]
    assert props["eos_token"] == "<|im_end|>"


def test_idle_slots(ask: Ask) -> None:
    slots = ask("/slots?fail_on_no_slot=1").json()
    assert [(slot["id"], slot["is_processing"], slot["n_ctx"]) for slot in slots] == [
        (0, False, 512),
        (1, False, 512),
    ]


def test_slots_at_work(service: Service) -> None:
    async def look() -> tuple[list[dict[str, Any]], httpx.Response]:
        transport = httpx.ASGITransport(app_of(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            prompt = await service.tokenize(PROMPT)
            settings = {"sampling": {"n_predict": -1, "ignore_eos": True}}
            request = service.session.prepare(prompt, settings=settings)
            async with (
                await service.start(request, kind="test") as one,
                await service.start(request, kind="test") as other,
            ):
                for ticket in (one, other):
                    async for _ in ticket:
                        break
                slots = (await client.get("/slots")).json()
                return slots, await client.get("/slots?fail_on_no_slot=1")

    slots, full = asyncio.run(look())
    for slot in slots:
        assert slot["is_processing"]
        assert slot["n_prompt_tokens"] > 0
        assert slot["next_token"][0]["n_decoded"] > 0
        assert slot["next_token"][0]["n_remain"] == -1
        assert "prompt" not in slot
    refused(full, status=503)


@pytest.mark.parametrize(
    "path",
    ["/props", "/slots/0?action=save", "/embedding", "/v1/embeddings", "/rerank", "/lora-adapters"],
)
def test_what_there_is_not(ask: Ask, path: str) -> None:
    refused(ask(path, content="a"), status=501)


def test_there_are_no_adapters(ask: Ask) -> None:
    assert ask("/lora-adapters").json() == []


def test_tokens_and_back(ask: Ask) -> None:
    tokens = ask("/tokenize", content=PROMPT).json()["tokens"]
    back = ask("/detokenize", tokens=tokens).json()
    assert back == {"content": PROMPT, "prompt": PROMPT}


def test_names_of_control_tokens(ask: Ask) -> None:
    end = VOCAB.eos
    assert ask("/tokenize", content="<|im_end|>").json()["tokens"] == [end]
    assert end not in ask("/tokenize", content="<|im_end|>", parse_special=False).json()["tokens"]


def test_texts_and_ids_in_turn(ask: Ask) -> None:
    the = ask("/tokenize", content="the").json()["tokens"]
    assert ask("/tokenize", content=["the", 5, "the"]).json()["tokens"] == [*the, 5, *the]


def test_pieces_that_are_not_characters_are_bytes(ask: Ask) -> None:
    tokens = ask("/tokenize", content="a é", with_pieces=True).json()["tokens"]
    assert [token["piece"] for token in tokens][-2:] == [[0xC3], [0xA9]]


def test_tokenising_as_lm_eval_asks_it(ask: Ask) -> None:
    answer = ask("/tokenize", prompt=PROMPT, add_special_tokens=False).json()
    assert answer["tokens"] == ask("/tokenize", content=PROMPT).json()["tokens"]
    assert answer["count"] == len(answer["tokens"])
    info = ask("/tokenizer_info").json()
    assert info["eos_token"] == "<|im_end|>"
    assert info["vocab_size"] == len(VOCAB.texts)


@pytest.mark.parametrize("token", [len(VOCAB.texts), 1 << 40, -1, "a"])
def test_foreign_tokens(ask: Ask, token: object) -> None:
    refused(ask("/detokenize", tokens=[token]))


def test_a_whole_answer(ask: Ask) -> None:
    answer = ask("/completion", prompt=PROMPT, n_predict=5, temperature=0, return_tokens=True).json()
    assert answer["tokens_predicted"] == len(answer["tokens"]) == answer["timings"]["predicted_n"] == 5
    assert answer["prompt"] == PROMPT
    assert answer["stop_type"] == "limit"
    assert answer["timings"]["draft_n"] >= answer["timings"]["draft_n_accepted"]
    assert ask("/detokenize", tokens=answer["tokens"]).json()["content"] == answer["content"]


def test_a_stream_says_the_same(ask: Ask) -> None:
    body = {"prompt": PROMPT, "n_predict": 5, "temperature": 0, "return_tokens": True}
    whole, streamed = ask("/completion", **body).json(), chunks(ask("/completions", **body, stream=True))
    assert "".join(chunk["content"] for chunk in streamed) == whole["content"]
    assert [token for chunk in streamed for token in chunk["tokens"]] == whole["tokens"]
    assert [chunk["stop"] for chunk in streamed] == [False] * (len(streamed) - 1) + [True]
    assert streamed[-1]["tokens_predicted"] == 5


def test_a_text_and_its_tokens_are_the_same_prompt(ask: Ask) -> None:
    tokens = ask("/tokenize", content=PROMPT).json()["tokens"]
    prompts = [PROMPT, tokens, {"prompt_string": PROMPT}]
    answers = ask("/completion", prompt=prompts, n_predict=4, temperature=0).json()
    assert [answer["index"] for answer in answers] == [0, 1, 2]
    assert len({answer["content"] for answer in answers}) == 1
    mixed = ask("/completion", prompt=[*tokens, " to", 5], n_predict=1).json()
    assert mixed["prompt"] == f"{PROMPT} to\x05"


def test_several_answers_differ_by_their_seeds(ask: Ask) -> None:
    first, second = ask("/completion", prompt=PROMPT, n_predict=8, seed=3, n=2, temperature=2).json()
    assert [a["generation_settings"]["seed"] for a in (first, second)] == [3, 4]
    assert first["content"] != second["content"]


def test_probabilities(ask: Ask) -> None:
    answer = ask(
        "/completion", prompt=PROMPT, n_predict=3, temperature=0, n_probs=4, return_tokens=True
    ).json()
    told = answer["completion_probabilities"]
    assert [each["id"] for each in told] == answer["tokens"]
    for each in told:
        assert len(each["top_logprobs"]) == 4
        assert each["top_logprobs"][0]["id"] == each["id"], "greedy: the most probable"
        assert each["logprob"] == each["top_logprobs"][0]["logprob"] <= 0.0


@pytest.mark.parametrize("name", [65, "A"])
@pytest.mark.parametrize("as_object", [False, True])
def test_bias(ask: Ask, name: int | str, as_object: bool) -> None:
    def lifted(bias: object) -> str:
        given = {str(name): bias} if as_object else [[name, bias]]
        body = {"prompt": PROMPT, "n_predict": 4, "temperature": 0, "logit_bias": given}
        return str(ask("/completion", **body).json()["content"])

    assert lifted(100) == "AAAA"
    assert "A" not in lifted(False)


@pytest.mark.parametrize("token", ["99999", "9" * 1000, 99999])
def test_biases_of_foreign_tokens(ask: Ask, token: int | str) -> None:
    refused(ask("/completion", prompt=PROMPT, logit_bias=[[token, 1]]), "logit_bias")


def test_a_grammar_is_kept(ask: Ask) -> None:
    answer = ask("/completion", prompt=PROMPT, grammar='root ::= "the" [0-9]{2}', n=2, n_predict=8).json()
    for each in answer:
        assert each["content"].startswith("the") and each["content"][3:].isdigit()
        assert each["stop_type"] == "eos"


def test_a_schema_is_kept(ask: Ask) -> None:
    answer = ask("/completion", prompt=PROMPT, json_schema={"const": "to"}, n_predict=16).json()
    assert json.loads(answer["content"]) == "to"


def test_what_does_not_compile(ask: Ask) -> None:
    refused(ask("/completion", prompt=PROMPT, grammar="root ::= (the"))
    refused(ask("/completion", prompt=PROMPT, json_schema={"type": "hiccup"}))


def test_a_stop_string(ask: Ask) -> None:
    body = {"prompt": PROMPT, "grammar": 'root ::= "to and the"', "n_predict": 16}
    answer = ask("/completion", **body, stop=["and"]).json()
    assert (answer["content"], answer["stop_type"], answer["stopping_word"]) == ("to ", "word", "and")


def test_a_prompt_is_taken_over_from_the_last(ask: Ask) -> None:
    prompt = "on and on, again and again, " * 3
    first = ask("/completion", prompt=prompt, n_predict=1).json()
    second = ask("/completion", prompt=prompt, n_predict=1).json()
    apart = ask("/completion", prompt=prompt, n_predict=1, cache_prompt=False).json()
    assert first["timings"]["prompt_n"] > second["timings"]["prompt_n"] == 1
    assert second["timings"]["cache_n"] == second["tokens_evaluated"] - 1
    assert apart["timings"]["cache_n"] == 0


def test_speculation_can_be_switched_off(ask: Ask) -> None:
    body = {"prompt": PROMPT, "n_predict": 8, "temperature": 0}
    drafted = ask("/completion", **body).json()
    plain = ask("/completion", **body, speculative={"mode": "off"}).json()
    assert drafted["timings"]["draft_n"] > plain["timings"]["draft_n"] == 0
    assert plain["content"] == drafted["content"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, None),
        ({"n_predict": 1}, "prompt"),
        ({"prompt": "the " * 600}, None),
        ({"prompt": [99999]}, None),
        ({"prompt": ["a"] * 5}, "prompt"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": [1, *["a"] * 1025]}, None),
        ({"prompt": "a", "n": 4}, "n_cmpl"),
        ({"prompt": "a", "mirostat": 1}, "mirostat"),
        ({"prompt": "a", "samplers": ["infill"]}, "samplers"),
        ({"prompt": "a", "n_predict": 1, "max_tokens": 2}, "n_predict"),
        ({"prompt": "a", "unheard_of": 1}, "unheard_of"),
        ({"prompt": "a", "speculative": {"draft_max": 2, "draft_min": 5}}, None),
    ],
)
def test_what_is_refused(ask: Ask, body: dict[str, Any], param: str | None) -> None:
    refused(ask("/completion", **body), param)
    refused(ask("/completion", **body, stream=True), param)


def test_a_template_is_applied(ask: Ask) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hen"}]}]
    prompt = ask("/apply-template", messages=messages).json()["prompt"]
    assert prompt == "<|im_start|>user\nhen<|im_end|>\n<|im_start|>assistant\n"
    refused(ask("/apply-template", messages=[{"role": "user", "content": 5}]))


def test_nothing_is_filled_in_without_the_tokens_for_it(ask: Ask) -> None:
    refused(ask("/infill", input_prefix="a", input_suffix="b"), status=501)


@pytest.mark.parametrize("marks", [FILL_IN, FILL_IN + PROJECT], ids=["gap", "project"])
def test_filling_in(tmp_path: Path, marks: tuple[str, ...]) -> None:
    vocab = replace(VOCAB, texts=VOCAB.texts + marks, control=VOCAB.control | set(marks))
    path = tiny_llama(tmp_path / "model.gguf", vocab=vocab)
    settings = {"runtime": {"threads": 1, "ctx_size": 256, "device": "cpu"}, "speculation": {"mode": "off"}}
    with Service(llamaspec.load(main=str(path), settings=settings, parallel=1), Limits()) as service:
        ask = asking(service)
        body = {
            "input_prefix": "the hen",
            "prompt": " and",
            "input_suffix": "to <|fim_middle|>",
            "n_predict": 1,
        }
        gap = "<|fim_prefix|>the hen and<|fim_suffix|>to <|fim_middle|><|fim_middle|>"
        assert ask("/infill", **body).json()["prompt"] == gap
        with_file = ask("/infill", **body, input_extra=[{"filename": "a.h", "text": "order"}]).json()[
            "prompt"
        ]
        if PROJECT[0] in marks:
            head = "<|repo_name|>repository\n<|file_sep|>a.h\norder<|file_sep|>file\n"
        else:
            head = "order\n\n"
        assert with_file == head + gap
        suffix = ask("/tokenize", content="to <|fim_middle|>", parse_special=False).json()["tokens"]
        assert vocab.texts.index("<|fim_middle|>") not in suffix
        evaluated = ask("/infill", **body).json()["tokens_evaluated"]
        prefix = ask("/tokenize", content="the hen and").json()["tokens"]
        assert evaluated == len(prefix) + len(suffix) + 3
        refused(ask("/infill", input_prefix="a"), "input_suffix")
