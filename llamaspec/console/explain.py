"""Rounds as a person follows them, one a line on standard error.

Every mark is a character, so that it can be read without colour:

    a|b        accepted: the source's name, then its tokens
    [-c|d-]    rejected, with what was drafted behind it
    (e|f)      drafted, and left out of the check
    {+g+}      the main model's own token
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.text import Text

from llamaspec.events import DraftedToken, RoundEvent

_MOST_UNCHECKED = 6
_STYLES = {"model": "cyan", "ngram": "green", "corpus": "magenta"}
_LEGEND = (
    ("accepted", "underline"),
    " by whom it was drafted, ",
    ("[-rejected-]", "red strike"),
    ", ",
    ("(not checked)", "dim"),
    ", ",
    ("{+the main model's own+}", "bold"),
    ", ",
    ("why the draft ended", "dim italic"),
)
_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, *range(0x80, 0xA0))}


class RoundPrinter:
    """Rounds without a draft are gathered in one line, until one with a draft comes."""

    def __init__(self, spell: Callable[[int], str], color: bool | None = None) -> None:
        """`spell` gives a token's text; `color` None: on a terminal, unless NO_COLOR is set."""
        self._spell = spell
        self._console = Console(
            stderr=True,
            highlight=False,
            soft_wrap=True,
            force_terminal=color,
            no_color=True if color is False else None,
        )
        self._count = 0
        self._plain: list[int] = []

    def write(self, event: RoundEvent) -> None:
        if self._count == 0:
            self._console.print(Text.assemble(*_LEGEND))
        self._count += 1
        if not event.drafted:
            self._plain += event.emitted
            return
        self._flush(self._count - 1)
        self._print(str(self._count), self._draft(event))

    def end(self) -> None:
        self._flush(self._count)
        self._console.print()

    def _flush(self, last: int) -> None:
        if self._plain:
            first = last - len(self._plain) + 1
            numbers = str(last) if first == last else f"{first}-{last}"
            self._print(numbers, self._own(self._plain))
            self._plain = []

    def _print(self, numbers: str, what: Text) -> None:
        self._console.print(Text.assemble((f"{numbers:>9}  ", "dim"), what))

    def _draft(self, event: RoundEvent) -> Text:
        accepted = event.drafted[: event.accepted]
        checked, unchecked = event.drafted[event.accepted : event.width], event.drafted[event.width :]
        left = len(unchecked) - _MOST_UNCHECKED
        more = f"|… {left} more" if left > 0 else ""
        line = Text()
        if any(one.source != event.drafter for one in event.drafted) and event.drafter:
            line.append(f"{event.drafter}: ", "dim")
        named = ""
        for part, form, style in (
            (accepted, "{}", "underline {}"),
            (checked, "[-{}-]", "red strike"),
            (unchecked[:_MOST_UNCHECKED], f"({{}}{more})", "dim {}"),
        ):
            for source, tokens in self._by_source(part):
                if source != named:
                    line.append(f"{source} ", "dim")
                    named = source
                line.append(form.format(tokens), style.format(_STYLES.get(source, ""))).append(" ")
        line.append_text(self._own(event.emitted[event.accepted :]))
        if event.stopped:
            line.append(f"  {event.stopped}", "dim italic")
        return line

    def _own(self, tokens: Sequence[int]) -> Text:
        return Text(f"{{+{self._joined(tokens)}+}}", "bold") if tokens else Text()

    def _by_source(self, drafted: Sequence[DraftedToken]) -> Iterator[tuple[str, str]]:
        for source, tokens in groupby(drafted, key=lambda one: one.source):
            yield source, self._joined([one.token for one in tokens])

    def _joined(self, tokens: Sequence[int]) -> str:
        return "|".join(self._spell(token).translate(_ESCAPES) for token in tokens)
