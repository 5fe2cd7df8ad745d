"""What an answer looks like."""

import io
from collections import Counter

import pytest
from rich.console import Console

from llamaspec.chat.commands import END_OF_BLOCK
from llamaspec.console.answer import harmless
from llamaspec.console.chat import Screen, turn_line
from llamaspec.console.markdown import MarkdownPrinter
from llamaspec.events import FinishReason, ProgressEvent, TextEvent
from llamaspec.stats import Stats

ANSWER = """\
# Title

One line
and another, with <b>tags</b> and [a link](https://example.org/x).

- first
- second

```python
def f():

    return 1
```

| a | b |
| - | - |
| 1 | 2 |

The end."""


def drawn(
    text: str, *, step: int = 3, terminal: bool = False, drafted: bool = False, height: int = 12
) -> str:
    file = io.StringIO()
    colors = "standard" if terminal else None
    console = Console(file=file, force_terminal=terminal, width=60, height=height, color_system=colors)
    printer = MarkdownPrinter(None, console)
    for start in range(0, len(text), step):
        printer.write(TextEvent(0, text[start : start + step], (), drafted))
    printer.end()
    return file.getvalue()


def test_markdown_is_drawn_block_by_block_and_loses_nothing() -> None:
    shown = drawn(ANSWER)
    for part in (
        "Title",
        "One line\nand another",
        "<b>tags</b>",
        "https://example.org/x",
        "def f():",
        "The end.",
    ):
        assert part in shown, part
    assert " • first" in shown
    assert "```" not in shown
    assert "| - |" not in shown


def test_what_rich_would_leave_out_is_there() -> None:
    shown = drawn("See [the text][1].\n\n<div>\nin it\n</div>\n\n[1]: https://example.org/y\n")
    assert "See [the text][1]." in shown
    assert "<div>\nin it\n</div>" in shown
    assert "[1]: https://example.org/y" in shown


def test_it_does_not_matter_how_the_text_comes() -> None:
    assert drawn(ANSWER, step=1) == drawn(ANSWER, step=7) == drawn(ANSWER, step=len(ANSWER))


def test_on_a_terminal_drafted_tokens_are_coloured_until_a_block_is_complete() -> None:
    assert "\x1b[36m" in drawn("words as they come", terminal=True, drafted=True)
    assert "\x1b[36m" not in drawn("words as they come", terminal=True, drafted=False)


def test_a_block_longer_than_the_screen_is_there_once_in_the_end() -> None:
    code = "```\n" + "".join(f"line {number}\n" for number in range(40)) + "```\n"
    shown = drawn(code, terminal=True, step=len(code) // 2, height=8)
    final = shown.rsplit("line 0\x1b", 1)[-1]
    assert Counter(line.strip() for line in final.splitlines() if "line 39" in line).total() == 1


@pytest.mark.parametrize(
    "hostile", ["\x1b]0;title\x07", "\x1b[2J", "\x9b2J", "\x9d0;t\x9c", "a\rb", "\x7f", "\x90q"]
)
def test_what_a_model_writes_moves_nothing(hostile: str) -> None:
    assert harmless(f"a{hostile}b\n\tc").replace("\n\t", "").isprintable()
    assert not any(
        character in drawn(f"see {hostile} here") for character in "\x07\x1b\x9b\x9c\x9d\x90\x7f\r"
    )


def stats() -> Stats:
    counted = Stats(prompt_tokens=2034, cached_tokens=1980, time_to_first_token=0.314)
    counted.record_tokens(1, 0.0)
    counted.record_round(0.1, 0.2)
    counted.record_draft("model", ["model"] * 4, 3)
    counted.record_tokens(4, 0.4)
    counted.predicted_seconds = 0.4
    return counted


def test_a_line_says_what_an_answer_came_to() -> None:
    assert turn_line(stats(), FinishReason.STOP, 4096) == (
        "5 tokens at 10.0/s · 75 % of 4 drafted tokens accepted · "
        "first token 0.31 s (54 tokens read, 1,980 known) · context 2,039 of 4,096"
    )
    assert turn_line(stats(), FinishReason.CANCELLED, 4096).startswith("stopped · 5 tokens")
    assert turn_line(stats(), FinishReason.LENGTH, 4096).endswith("ended by the token limit")
    assert "the context is full: /trim" in turn_line(stats(), FinishReason.LENGTH, 2039)
    assert turn_line(Stats(), FinishReason.STOP, 4096) == "0 tokens · context 0 of 4,096"


def test_in_a_pipe_there_is_nothing_but_answers(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(color=None, markdown=None, quiet=True)
    for number in range(2):
        view = screen.answer()
        view.progress(ProgressEvent(0, 100, 0, 0, 0.0))
        view.write(TextEvent(0, f"**answer** {number}\x1b", (), drafted=True))
        view.end()
        screen.note("unasked")
    assert capsys.readouterr() == ("**answer** 0\x1b\n\n**answer** 1\x1b\n", "")


def test_replies_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(color=None, markdown=None, quiet=False)
    screen.tell(f"[red]{END_OF_BLOCK}[/nothing]")
    screen.table([("[b]", "x")])
    assert f"[red]{END_OF_BLOCK}[/nothing]\n[b]  x" in capsys.readouterr().err


def test_what_a_reply_quotes_can_not_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(color=None, markdown=False, quiet=False)
    screen.tell("System prompt: \x1b]0;mine\x07\x1b[2J\x9b1A")
    screen.table([("name", "\x1b[2J")])
    assert not {"\x1b", "\x07", "\x9b"} & set(capsys.readouterr().err)
