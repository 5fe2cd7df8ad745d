"""Conversations, and the files that they are kept in."""

import json
import os
import sys
from pathlib import Path

import pytest

from llamaspec.chat.conversation import Conversation, Turn
from llamaspec.chat.library import Library, history_file
from llamaspec.errors import LlamaspecError, UsageError

TALK = Conversation(
    model="m",
    system="Be brief.",
    turns=(Turn(question="q1", answer="a1"), Turn(question="q2", answer="a", stopped=True)),
)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "conversations")


def test_messages_for_the_template() -> None:
    said = [(message["role"], message["content"]) for message in TALK.messages("q3")]
    assert said == [
        ("system", "Be brief."),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q2"),
        ("assistant", "a"),
        ("user", "q3"),
    ]
    assert Conversation().messages("q") == [{"role": "user", "content": "q"}]


def test_changes_leave_the_old_one_alone() -> None:
    longer = TALK.followed_by(Turn(question="q3", answer=""))
    assert [turn.question for turn in longer.turns] == ["q1", "q2", "q3"]
    assert longer.without_last() == TALK
    assert [turn.question for turn in longer.without_oldest(2).turns] == ["q3"]
    assert TALK.with_system(None).system is None
    assert len(TALK.turns) == 2


def test_titles_are_one_printable_line() -> None:
    asked = Conversation(turns=(Turn(question="Why\n is \x1b[31mthe sky " + "blue " * 30, answer=""),))
    assert asked.title.startswith("Why is [31mthe sky blue")
    assert asked.title.isprintable()
    assert len(asked.title) == 60
    assert Conversation().title == ""


def test_what_is_saved_is_read_back(library: Library) -> None:
    odd = TALK.followed_by(Turn(question="ü\r\n\x00\u2028\U0001f600", answer="```\n"))
    library.save("talk", odd)
    assert library.read("talk") == odd
    assert [path.name for path in library.folder.iterdir()] == ["talk.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_files_are_private(library: Library) -> None:
    library.save("talk", TALK)
    assert library.path("talk").stat().st_mode & 0o777 == 0o600
    assert library.folder.stat().st_mode & 0o777 == 0o700
    library.save("talk", TALK.without_last())
    assert library.path("talk").stat().st_mode & 0o777 == 0o600


def test_a_failed_save_leaves_what_was_there(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.save("talk", TALK)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LlamaspecError, match="No space left"):
        library.save("talk", Conversation())
    assert library.read("talk") == TALK
    assert [path.name for path in library.folder.iterdir()] == ["talk.json"]


def test_the_last_one_is_the_first_of_the_list(library: Library) -> None:
    assert library.list() == []
    for number, name in enumerate(("b", "c", "a")):
        library.save(name, TALK)
        os.utime(library.path(name), (number, number))
    (library.folder / "not a name!.json").write_text("{}")
    assert [kept.name for kept in library.list()] == ["a", "c", "b"]
    library.remove("a")
    assert [kept.name for kept in library.list()] == ["c", "b"]


def test_new_names_are_free(library: Library) -> None:
    names = set()
    for _ in range(3):
        name = library.new_name()
        library.save(name, TALK)
        names.add(name)
    assert len(names) == 3
    assert all(map(library.is_automatic, names))
    assert not library.is_automatic("2026-plans")


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a\\b", ".hidden", "-x", "con", "LPT1", "x" * 65, "ü", "a.b", "a\n"]
)
def test_what_is_no_name(library: Library, name: str) -> None:
    with pytest.raises(UsageError):
        library.path(name)


def test_unknown_and_damaged_files_are_refused(library: Library) -> None:
    library.save("rivers", TALK)
    with pytest.raises(UsageError) as refused:
        library.read("river")
    assert refused.value.hint == "Did you mean rivers?"
    for content in (
        "",
        "[]",
        "{",
        '{"version": 2}',
        '{"turns": [{"question": 1, "answer": ""}]}',
        '{"more": 1}',
    ):
        library.path("rivers").write_text(content)
        with pytest.raises(UsageError, match="holds no conversation"):
            library.read("rivers")
    library.path("rivers").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError):
        library.read("rivers")


def test_the_file_is_plain_json(library: Library) -> None:
    library.save("talk", TALK)
    data = json.loads(library.path("talk").read_text(encoding="utf-8"))
    assert data["turns"][1] == {"question": "q2", "answer": "a", "stopped": True}


def test_one_folder_for_all_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMASPEC_CONFIG", str(tmp_path))
    assert Library().folder == tmp_path / "conversations"
    assert history_file() == tmp_path / "chat_history"
