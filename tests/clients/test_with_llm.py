"""Simon Willison's llm, with the server in its file of extra models."""

import json
from pathlib import Path

import pytest
import yaml
from client_help import (
    ABOUT_ANNA,
    ABOUT_ZOG,
    COUNTED,
    COUNTING,
    FIBONACCI,
    TOOL_USER,
    Person,
    Served,
    capital_of,
    check_anna,
    check_capital,
    client_library,
)

llm = client_library("llm")
pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory: pytest.TempPathFactory, served: Served) -> Path:
    folder = tmp_path_factory.mktemp("llm")
    model = {"model_name": served.model, "api_base": served.openai_url}
    models = [
        {**model, "model_id": "served", "supports_schema": True, "supports_tools": True},
        {**model, "model_id": "served-text", "completion": True},
    ]
    (folder / "extra-openai-models.yaml").write_text(yaml.safe_dump(models), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, user_folder: Path) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(user_folder))


@pytest.mark.parametrize("stream", [True, False])
def test_chat(stream: bool) -> None:
    response = llm.get_model("served").prompt(COUNTING, max_tokens=60, stream=stream)
    assert "".join(response) == COUNTED
    usage = response.usage()
    assert usage.input > 10
    assert usage.output > 10
    assert usage.details["completion_tokens_details"]["accepted_prediction_tokens"] > 0


def test_conversation_with_system_prompt() -> None:
    conversation = llm.get_model("served").conversation()
    first = conversation.prompt(
        "My favourite colour is orange.", system="You answer in few words.", max_tokens=20
    )
    assert first.text()
    assert "orange" in conversation.prompt("Which one is it?", max_tokens=20).text().lower()


def test_stop() -> None:
    assert llm.get_model("served").prompt(COUNTING, stop=", 6", max_tokens=60).text() == "1, 2, 3, 4, 5"


def test_schema() -> None:
    response = llm.get_model("served").prompt(ABOUT_ANNA, schema=Person, max_tokens=60)
    check_anna(Person.model_validate_json(response.text()))


def test_json_object() -> None:
    response = llm.get_model("served").prompt(ABOUT_ANNA, json_object=True, max_tokens=60)
    assert isinstance(json.loads(response.text()), dict)


@pytest.mark.parametrize("stream", [True, False])
def test_tools_round_trip(stream: bool) -> None:
    chain = llm.get_model("served").chain(
        ABOUT_ZOG, system=TOOL_USER, tools=[capital_of], stream=stream, options={"max_tokens": 60}
    )
    check_capital(chain.text())
    called, answered = chain.responses()
    assert [call.name for call in called.tool_calls()] == ["capital_of"]
    assert answered.tool_calls() == []


def test_completion_with_logprobs() -> None:
    response = llm.get_model("served-text").prompt(FIBONACCI, logprobs=2, max_tokens=8)
    assert response.text().startswith(" fibonacci(n")
    told = response.response_json["logprobs"]
    assert "".join(entry["text"] for entry in told) == response.text()
    for entry in told:
        (top,) = entry["top_logprobs"]
        assert max(top.values()) <= 0.0
        assert entry["text"] == max(top, key=top.__getitem__)
