"""What `--explain` prints, mark by mark."""

import pytest

from llamaspec.console.explain import RoundPrinter
from llamaspec.events import DraftedToken, RoundEvent


def spelt(token: int) -> str:
    return {0: "\n", 1: "\x1b[2J", 2: " é"}.get(token, chr(ord("a") + token % 26))


def drafted(*tokens: tuple[int, str]) -> tuple[DraftedToken, ...]:
    return tuple(DraftedToken(token, source, 0.5) for token, source in tokens)


def shown(capsys: pytest.CaptureFixture[str], *events: RoundEvent, color: bool = False) -> list[str]:
    printer = RoundPrinter(spelt, color)
    for event in events:
        printer.write(event)
    printer.end()
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def plain(token: int) -> RoundEvent:
    return RoundEvent(0, "", (), 0, 0, (token,), None)


def test_every_part_of_a_round_has_its_mark(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = drafted((3, "model"), (4, "model"), (5, "ngram"), (6, "ngram"), (7, "ngram"), (8, "corpus"))
    event = RoundEvent(0, "cascade", tokens, 5, 3, (3, 4, 5, 9), "expected gain")
    legend, line, _ = shown(capsys, event)
    assert "[-rejected-]" in legend
    assert line == "        1  cascade: model d|e ngram f [-g|h-] corpus (i) {+j+}  expected gain"


def test_rounds_without_a_draft_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    draft = RoundEvent(0, "model", drafted((5, "model")), 1, 1, (5, 6), None)
    lines = shown(capsys, plain(3), plain(4), draft, plain(7), draft, plain(8), plain(9), plain(10))
    assert [line.strip() for line in lines[1:-1]] == [
        "1-2  {+d|e+}",
        "3  model f {+g+}",
        "4  {+h+}",
        "5  model f {+g+}",
        "6-8  {+i|j|k+}",
    ]


def test_what_a_model_writes_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, plain(0), plain(1), plain(2))
    assert lines[1].endswith(r"{+\n|\x1b[2J| é+}")
    assert "\x1b" not in "".join(lines)


def test_long_rests_are_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = drafted(*((3, "ngram") for _ in range(20)))
    line = shown(capsys, RoundEvent(0, "ngram", tokens, 0, 0, (4,), "end"))[1]
    assert line == "        1  ngram (d|d|d|d|d|d|… 14 more) {+e+}  end"


def test_colour_is_added_to_the_marks(capsys: pytest.CaptureFixture[str]) -> None:
    event = RoundEvent(0, "model", drafted((3, "model"), (4, "model")), 2, 1, (3, 5), None)
    line = shown(capsys, event, color=True)[1]
    assert "\x1b[4;36md" in line
    assert "[-e-]" in line
