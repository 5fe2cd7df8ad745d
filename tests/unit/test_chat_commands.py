"""What lines of a conversation mean."""

import pytest

from llamaspec.chat.commands import (
    FORMS,
    Command,
    Say,
    attached,
    drafting,
    number,
    parse,
    sampled,
    sampling_key,
    turned_on,
)
from llamaspec.errors import UsageError


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("", None),
        (" \n\t", None),
        ("Hello there ", Say("Hello there")),
        ("    indented:\n\tcode\n", Say("    indented:\n\tcode")),
        ("//usr/bin is a folder?", Say("/usr/bin is a folder?")),
        ("///", Say("//")),
        ("5 / 2 is?", Say("5 / 2 is?")),
        ("/help", Command("help", "")),
        ("  /retry  ", Command("retry", "")),
        ("/quit", Command("exit", "")),
        ("/read my notes.txt", Command("read", "my notes.txt")),
        ("/system Be brief.\nBe kind.", Command("system", "Be brief.\nBe kind.")),
        ("/system\nBe brief.", Command("system", "Be brief.")),
    ],
)
def test_lines(line: str, meaning: object) -> None:
    assert parse(line) == meaning


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("/hepl", "no command /hepl", "Did you mean /help?"),
        ("/", "no command /", "/help lists"),
        ("/etc/passwd", "no command /etc/passwd", "written with //"),
        ("/Retry", "no command /Retry", "/retry"),
        ("/x\x1b[2J", "no command /x[2J", "/help"),
        ("/clear all", "/clear takes nothing", ""),
        ("/save", "/save takes NAME", ""),
    ],
)
def test_refused_lines(line: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(line)
    assert message in refused.value.message
    assert hint in refused.value.hint
    assert refused.value.message.isprintable()


def test_every_command_is_understood() -> None:
    for form in FORMS.values():
        argument = "" if form.takes.startswith("[") or not form.takes else "something"
        assert parse(f"/{form.name} {argument}") == Command(form.name, argument)


def test_names_of_speculation() -> None:
    assert drafting("off") == {"mode": "off"}
    assert drafting("auto") == {"mode": "auto"}
    assert drafting("fixed") == {"mode": "fixed"}
    assert drafting("fixed:6:0.5") == {"mode": "fixed", "draft_max": 6, "draft_min": 0, "p_min": 0.5}
    for nonsense in ("on", "fixed:x:1", "auto:nobody", "fixed:900:0.5"):
        with pytest.raises(UsageError) as refused:
            drafting(nonsense)
        assert "off" in refused.value.hint


def test_sampling_is_set_as_in_json() -> None:
    changed = sampled({"top_k": 1}, "temperature", "0.5")
    assert changed == {"top_k": 1, "temperature": 0.5}
    assert sampled(changed, "stop", '["a b"]')["stop"] == ["a b"]
    assert sampled(changed, "top_k", "default") == {"temperature": 0.5}
    with pytest.raises(UsageError, match="is no value for temperature"):
        sampled({}, "temperature", "hot")
    assert sampling_key("top-p") == "top_p"
    with pytest.raises(UsageError) as refused:
        sampling_key("temp")
    assert refused.value.hint == "Did you mean temperature?"


def test_switches_and_numbers() -> None:
    assert turned_on("on")
    assert not turned_on("off")
    assert number("12") == 12
    for nonsense in ("yes", "-1", "0", "1.5", "²", "9" * 5000):
        with pytest.raises(UsageError):
            number(nonsense)
        with pytest.raises(UsageError):
            turned_on(nonsense)


def test_nothing_in_a_file_ends_its_fence() -> None:
    assert attached("a.txt", "text\n") == "a.txt:\n```\ntext\n```\n\n"
    assert attached("a.md", "```py\n````").startswith("a.md:\n`````\n")
