"""`llamaspec chat` on generated files, its lines from a pipe, with the real llama.cpp."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf_files import tiny_llama
from typer.testing import CliRunner, Result

from llamaspec.chat.conversation import Conversation
from llamaspec.chat.library import Library
from llamaspec.chat.talk import Talk
from llamaspec.cli import app
from llamaspec.cli.conversing import Conversing
from llamaspec.console.chat import Screen
from llamaspec.errors import (
    ContextError,
    FileMissingError,
    LlamaspecError,
    NetworkError,
    OutOfMemoryError,
    ProfileNotFoundError,
    UsageError,
)
from llamaspec.events import FinishReason, ProgressEvent
from llamaspec.session import Session, load

RUNNER = CliRunner()
LOADED = {
    "runtime": {"ctx_size": 256, "threads": 1, "device": "cpu"},
    "sampling": {"temperature": 0.0, "n_predict": 24},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_llama(tmp_path_factory.mktemp("models") / "main.gguf"))


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLAMASPEC_CONFIG", str(tmp_path / "config"))


def chat(model: str, *lines: str, flags: tuple[str, ...] = ()) -> Result:
    common = ["-t", "1", "--device", "cpu", "--ctx-size", "256", "--temp", "0", "-n", "12", "--ignore-eos"]
    return RUNNER.invoke(app, ["chat", "-m", model, *common, *flags], input="\n".join(lines) + "\n")


def kept(tmp_path: Path) -> dict[str, Any]:
    files = (tmp_path / "config" / "conversations").glob("*.json")
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def questions(conversation: dict[str, Any]) -> list[str]:
    return [turn["question"] for turn in conversation["turns"]]


def test_a_conversation_is_kept_and_gone_on_with(model: str, tmp_path: Path) -> None:
    first = chat(model, "one", "two", flags=("--system", "Be brief."))
    assert first.exit_code == 0, first.output
    [(name, conversation)] = kept(tmp_path).items()
    assert questions(conversation) == ["one", "two"]
    assert conversation["system"] == "Be brief."
    answers = [turn["answer"].rstrip("\n") for turn in conversation["turns"]]
    assert first.stdout.rstrip("\n") == "\n\n".join(answers).rstrip("\n")
    assert "known" in first.stderr

    again = chat(model, "three", flags=("-c",))
    assert again.exit_code == 0, again.output
    assert questions(kept(tmp_path)[name]) == ["one", "two", "three"]
    assert kept(tmp_path)[name]["system"] == "Be brief."

    listed = RUNNER.invoke(app, ["chat", "--list"])
    assert listed.exit_code == 0
    assert name in listed.stdout
    assert "3 turns" in listed.stdout


def test_commands_do_what_they_say(model: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("noted\n", encoding="utf-8")
    done = chat(
        model,
        "one",
        "/retry",
        "/save talk",
        f"/read {tmp_path / 'notes.txt'}",
        "two",
        "/multi",
        "/three",
        " of it",
        "/end",
        "//four",
        "/trim 1",
        "/system Be kind.",
        "/spec off",
        "/spec",
        "/set temperature 0.5",
        "/set temperature",
        "/markdown off",
        "/stats",
        "/clear",
        "five",
        "/exit",
        "six",
    )
    assert done.exit_code == 0, done.output
    conversations = kept(tmp_path)
    talk = conversations.pop("talk")
    assert questions(talk) == ["notes.txt:\n```\nnoted\n```\n\ntwo", "/three\n of it", "/four"]
    assert talk["system"] == "Be kind."
    [other] = conversations.values()
    assert questions(other) == ["five"]
    assert other["system"] == "Be kind."
    for reply in (
        "Kept as talk.",
        "notes.txt: 6 characters",
        "Turns dropped: 1, kept: 3",
        "System prompt: Be kind.",
        "Speculation off.",
        "temperature  0.5",
        "Markdown is off.",
        "predicted",
        "A new conversation.",
    ):
        assert reply in done.stderr, reply


def test_conversations_change_places(model: str, tmp_path: Path) -> None:
    done = chat(model, "one", "/save first", "/clear", "two", "/save second", "/load first", "three", "/load")
    assert done.exit_code == 0, done.output
    conversations = kept(tmp_path)
    assert questions(conversations["first"]) == ["one", "three"]
    assert questions(conversations["second"]) == ["two"]
    taken = chat(model, "/save first", flags=("--load", "second"))
    assert isinstance(taken.exception, UsageError)


def test_nothing_is_kept_unless_it_is_said(model: str, tmp_path: Path) -> None:
    assert chat(model, "one", flags=("--no-save",)).exit_code == 0
    assert kept(tmp_path) == {}
    assert chat(model, "one", "/save it", "two", flags=("--no-save",)).exit_code == 0
    assert questions(kept(tmp_path)["it"]) == ["one", "two"]
    for flags in (("-c",), ("--load", "it")):
        assert chat(model, "three", "/load it", "four", flags=(*flags, "--no-save")).exit_code == 0
    assert questions(kept(tmp_path)["it"]) == ["one", "two"]


def test_where_nothing_can_be_kept_it_says_so_at_once(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLAMASPEC_CONFIG", str(tmp_path / "file"))
    refused = chat(model, "one")
    assert refused.exit_code == 1 and not refused.stdout
    assert "--no-save" in str(refused.exception.hint)
    assert chat(model, "one", flags=("--no-save",)).stdout


def test_an_editor_writes_the_message(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "file.write_text(file.read_text() + ' and\\nmore\\n')\n"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f'"{sys.executable}" "{script}"')
    assert chat(model, "/edit some").exit_code == 0
    [conversation] = kept(tmp_path).values()
    assert questions(conversation) == ["some and\nmore"]
    monkeypatch.setenv("EDITOR", "no-such-editor")
    assert isinstance(chat(model, "/edit").exception, UsageError)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["/hepl"], UsageError),
        (["/load nothing"], UsageError),
        (["/save ../x"], UsageError),
        (["/retry"], UsageError),
        (["/stats"], UsageError),
        (["/trim 2"], UsageError),
        (["/read /no/such/file"], FileMissingError),
        (["/profile nobody"], ProfileNotFoundError),
        (["/spec sometimes"], UsageError),
        (["/set temperature -3"], UsageError),
        (["/set top_k many"], UsageError),
        (["/set"], None),
        (["words " * 400], ContextError),
    ],
)
def test_in_a_pipe_an_error_ends_it(
    model: str, tmp_path: Path, lines: list[str], error: type[Exception] | None
) -> None:
    done = chat(model, *lines)
    if error is None:
        assert done.exit_code == 0
    else:
        assert isinstance(done.exception, error)
    assert kept(tmp_path) == {}


def test_nothing_is_drafted_where_nothing_was_loaded_to_draft(model: str) -> None:
    assert isinstance(chat(model, "/spec auto", flags=("--no-spec",)).exception, UsageError)
    shown = chat(model, "/spec", "/spec fixed:4:0.5", "/spec off")
    for line in ("auto (ngram)", "fixed:4:0.5 (ngram)", "off"):
        assert f"Speculation {line}." in shown.stderr


def test_the_context_is_told_of_in_words_of_a_conversation(model: str) -> None:
    error = chat(model, "words " * 400).exception
    assert isinstance(error, ContextError)
    assert error.message.endswith("and the context 256.")
    assert "/trim" in error.hint


def test_a_full_context_is_made_room_in(model: str, tmp_path: Path) -> None:
    done = chat(model, "one", "/trim", "two", flags=("-n", "-1"))
    assert done.exit_code == 0, done.output
    assert "the context is full: /trim makes room" in done.stderr
    assert "Turns dropped: 1, kept: 0" in done.stderr
    [conversation] = kept(tmp_path).values()
    assert questions(conversation) == ["two"]
    assert isinstance(chat(model, "one", "two", flags=("-n", "-1")).exception, ContextError)


def test_flags_that_make_no_sense(model: str, tmp_path: Path) -> None:
    assert isinstance(chat(model, flags=("-c",)).exception, UsageError)
    assert isinstance(chat(model, flags=("-c", "--load", "x")).exception, UsageError)
    assert isinstance(chat(model, flags=("--load", "x")).exception, UsageError)
    assert chat(model, "-c", flags=("--no-spec", "--spec", "auto")).exit_code != 0


def test_a_turn_reads_only_what_is_new(model: str) -> None:
    with load(main=model, settings=LOADED, parallel=1) as llm:
        talk = Talk(llm, Conversation())
        for question in ("one two three", "four", "five"):
            told: list[ProgressEvent] = []
            held = llm.loaded.engine.held
            assert "".join(event.text for event in talk.answer(question, on_progress=told.append))
            assert llm.stats.cached_tokens == held
            assert told[0].cached == held
            assert told[-1].processed == told[-1].total
        before, room = talk.conversation, talk.room
        assert talk.trim(1) == 1
        assert talk.room > room
        list(talk.answer("six"))
        assert [turn.question for turn in talk.conversation.turns] == ["four", "five", "six"]
        assert talk.trim() == 0 or talk.room >= 128
        assert [turn.question for turn in before.turns] == ["one two three", "four", "five"]


def test_a_stopped_answer_stays_as_a_part(model: str) -> None:
    with load(main=model, settings=LOADED, parallel=1) as llm:
        talk = Talk(llm, Conversation())
        seen: list[str] = []
        for event in talk.answer("one", should_stop=lambda: len(seen) >= 3):
            seen.append(event.text)
        assert llm.finish_reason is FinishReason.CANCELLED
        [turn] = talk.conversation.turns
        assert turn.stopped
        assert turn.answer == "".join(seen)

        assert not list(talk.answer("two", should_stop=lambda: True))
        assert len(talk.conversation.turns) == 1

        closed = talk.answer("three")
        next(closed)
        closed.close()
        assert talk.conversation.turns[-1].stopped

        list(talk.answer("four"))
        assert not talk.conversation.turns[-1].stopped
        assert llm.stats.cached_tokens > 0


class Lines:
    """A person who types these."""

    def __init__(self, *lines: str) -> None:
        self._lines = iter(lines)

    def read(self, start: str = "") -> str | None:
        return next(self._lines, None)

    def read_block(self) -> str | None:
        return None


def sitting(outcomes: list[str | BaseException], tmp_path: Path, errors: list[LlamaspecError]) -> Conversing:
    """At a terminal; each outcome is a model to load, or what comes of trying to."""

    def open_session(_profile: str | None) -> Session:
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return load(main=outcome, settings=LOADED, parallel=1)

    screen = Screen(color=False, markdown=False, quiet=True)
    library = Library(tmp_path / "kept")
    return Conversing(
        open_session, None, None, library, screen, keep=False, interactive=True, on_error=errors.append
    )


def test_a_profile_that_can_not_be_had_leaves_everything_as_it_was(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: list[LlamaspecError] = []
    with sitting([model, NetworkError("no answer"), model], tmp_path, errors) as conversing:
        conversing.run(Lines("/set temperature 0.5", "/profile smollm2-135m", "/set temperature", "one"))
    assert [error.message for error in errors] == ["no answer"]
    assert capsys.readouterr().err.count("temperature  0.5") == 2


@pytest.mark.parametrize("second", [KeyboardInterrupt(), OutOfMemoryError("too little")])
def test_without_any_pair_it_ends(model: str, tmp_path: Path, second: BaseException) -> None:
    errors: list[LlamaspecError] = []
    with (
        sitting([model, KeyboardInterrupt(), second], tmp_path, errors) as conversing,
        pytest.raises(type(second)),
    ):
        conversing.run(Lines("/profile smollm2-135m", "one"))
    assert errors == []
