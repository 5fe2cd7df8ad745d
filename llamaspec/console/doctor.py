"""Findings on a terminal, topic by topic."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llamaspec.doctor.check import State

if TYPE_CHECKING:
    from rich.text import Text

    from llamaspec.doctor.check import Examined, Finding

_MARKS = {State.OK: "✓", State.ATTENTION: "!", State.BROKEN: "✗"}
_OLD_MARKS = {State.OK: "v", State.ATTENTION: "!", State.BROKEN: "x"}  # for encodings without the others
_STYLES = {State.OK: "green", State.ATTENTION: "yellow", State.BROKEN: "bold red"}


class DoctorView:
    """Prints on standard output. With `verbose` every finding is shown, and its details."""

    def __init__(self, *, verbose: bool = False) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._verbose = verbose
        self._marks = _MARKS if _has(self._console.encoding, _MARKS.values()) else _OLD_MARKS

    def show(self, examined: "Examined") -> None:
        """A topic with its mark, and whatever is not well in it."""
        from rich.text import Text

        findings, state = examined.findings, examined.state
        mark = (self._marks[state], _STYLES[state])
        heading = Text.assemble("[", mark, "] ", (examined.check.topic, "bold"))
        in_heading = state is State.OK or len(findings) == 1
        if in_heading:
            heading.append(f": {findings[0].sentence}")
        self._write(heading, 0)
        for finding in findings:
            if finding.state is State.OK and not self._verbose:
                continue
            if not (in_heading and finding is findings[0]):
                own = (f"{self._marks[finding.state]} ", _STYLES[finding.state])
                self._write(Text.assemble(own, finding.sentence), 4)
            self._show_rest(finding)

    def _show_rest(self, finding: "Finding") -> None:
        from rich.text import Text

        for detail in finding.details if self._verbose else ():
            self._write(Text(f"- {detail}", style="dim"), 6)
        advice, *commands = finding.remedy.splitlines() or [""]
        if advice:
            self._write(Text(advice), 6)
        for command in commands:  # in one piece, as it is pasted
            self._console.print(Text.assemble(" " * 8, (command, "bold")), soft_wrap=True)

    def conclude(self, examined: Sequence["Examined"]) -> None:
        """In how many topics there is something to do."""
        states = [each.state for each in examined]
        counts = {"broken": states.count(State.BROKEN), "to improve": states.count(State.ATTENTION)}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        self._console.print(
            f"\n{told} (of {len(states)} topics)." if told else "\nAll is well.", markup=False
        )

    def _write(self, text: "Text", indent: int) -> None:
        """Folded on a terminal; into a pipe a line stays a line."""
        from rich.padding import Padding
        from rich.text import Text

        if self._console.is_terminal:
            self._console.print(Padding(text, (0, 0, 0, indent)))
        else:
            self._console.print(Text(" " * indent).append_text(text), soft_wrap=True)


def _has(encoding: str, marks: Iterable[str]) -> bool:
    try:
        "".join(marks).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
