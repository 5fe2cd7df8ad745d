"""Tool calls read out of a model's text while it is written, whatever pieces it comes in."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llamaspec.server.tools.arguments import ArgumentsReader, JsonArguments, TaggedArguments
from llamaspec.server.tools.request import Function
from llamaspec.server.tools.support import ToolSupport


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """Text that belongs to no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call of a known function; its arguments follow."""

    index: int
    id: str
    name: str

    def as_openai(self) -> dict[str, Any]:
        """An element of `delta.tool_calls`."""
        function = {"name": self.name, "arguments": ""}
        return {"index": self.index, "id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of the arguments' JSON."""

    index: int
    text: str

    def as_openai(self) -> dict[str, Any]:
        """An element of `delta.tool_calls`."""
        return {"index": self.index, "function": {"arguments": self.text}}


@dataclass(frozen=True, slots=True)
class CallEnd:
    """`complete`: the arguments are a JSON object. `text` is the call as the model wrote it so far."""

    index: int
    complete: bool
    text: str


Delta = ContentDelta | CallBegin | ArgumentsDelta | CallEnd


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str

    def as_openai(self) -> dict[str, Any]:
        """An element of `message.tool_calls`."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """A whole answer: `content` is None where there is nothing but calls."""

    content: str | None
    calls: tuple[ToolCall, ...]


class ToolCallStream:
    """Splits a model's text into content and calls of `functions`.

    What may yet be the start of a call is held back until it is known; blanks between content and calls
    are dropped. Without `parallel`, or in a format of single calls, the first complete call is the last:
    then `done` is true, the rest is ignored, and the generation can be ended. `exact` is for text
    under a grammar: only the template's own way to write a call counts.

    A call with an unknown name, or that does not lead up to arguments, is content. One that breaks off
    within its arguments, of which some are out already, ends with `complete` false.
    """

    def __init__(
        self,
        support: ToolSupport,
        functions: Sequence[Function],
        *,
        parallel: bool = True,
        exact: bool = False,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self._format = support.format
        self._functions = {function.name: function for function in functions}
        self._single = support.format.single or not parallel
        self._forms = range(1 if exact else len(support.format.forms))
        self._new_id = new_id or support.new_id
        starts = {(self._format.begin + self._format.forms[form].before)[0] for form in self._forms}
        self._candidates = re.compile("[" + re.escape("".join(sorted(starts))) + "]")
        self._held = ""
        self._blanks = ""  # after content: dropped where a call follows
        self._fresh = True  # nothing but blanks since the start or since a call
        self._behind_call = False
        self._form: int | None = None  # of the call that has just ended, whose closing text is still due
        self._reader: ArgumentsReader | None = None
        self._text = ""  # of the call that is being read
        self._calls = 0
        self.completed = 0
        self.done = False

    @property
    def finish_reason(self) -> str | None:
        """What a choice finishes with because of its calls; None: as if there were none."""
        return "tool_calls" if self.completed else None

    def feed(self, text: str) -> list[Delta]:
        """What is known now that `text` has come too."""
        if self.done:
            return []
        self._held += text
        return list(self._read(final=False))

    def finish(self) -> list[Delta]:
        """What is left when the text has ended."""
        return list(self._read(final=True))

    def _read(self, *, final: bool) -> Iterator[Delta]:
        while self._held and not self.done:
            held = self._held
            if self._reader is not None:
                yield from self._read_arguments(self._reader)
            elif self._form is not None:
                yield from self._read_closing(self._form, final)
            else:
                yield from self._read_content(final)
            if self._held == held:
                break
        if final and not self.done:
            if self._reader is not None:
                yield from self._end_call(complete=False)
            elif self._blanks and not self._behind_call:
                yield ContentDelta(self._blanks)
            self._blanks = ""

    def _read_content(self, final: bool) -> Iterator[Delta]:
        for found in self._candidates.finditer(self._held):
            at = found.start()
            undecided = False
            for number in self._forms:
                if self._format.forms[number].leads and not (self._fresh and not self._held[:at].strip()):
                    continue
                opener = self._format.openers[number]
                opened = opener.full.match(self._held, at)
                if opened and opened["name"] in self._functions:
                    yield from self._say(self._held[:at])
                    yield from self._begin_call(number, opened)
                    return
                undecided |= opener.partial.match(self._held, at) is not None
            if undecided and not final:
                yield from self._say(self._held[:at])
                self._held = self._held[at:]
                return
        yield from self._say(self._held)
        self._held = ""

    def _begin_call(self, form: int, opened: re.Match[str]) -> Iterator[Delta]:
        function = self._functions[opened["name"]]
        self._form = form
        self._reader = TaggedArguments(function.schema_of_arguments) if self._format.xml else JsonArguments()
        self._text = ("" if self._behind_call else self._blanks) + self._held[opened.start() : opened.end()]
        self._blanks = ""
        self._held = self._held[opened.end() :]
        yield CallBegin(self._calls, self._new_id(), function.name)

    def _read_arguments(self, reader: ArgumentsReader) -> Iterator[Delta]:
        self._text += self._held
        delta, rest = reader.feed(self._held)
        self._held = rest or ""
        if delta:
            yield ArgumentsDelta(self._calls, delta)
        if rest is not None:  # it may be longer than this piece: a reader holds back what it can't place yet
            self._text = self._text[: len(self._text) - len(rest)]
            yield from self._end_call(complete=reader.complete)

    def _end_call(self, *, complete: bool) -> Iterator[Delta]:
        yield CallEnd(self._calls, complete, self._text)
        self._calls += 1
        self.completed += complete
        self.done = complete and self._single
        self._reader = None
        self._fresh = self._behind_call = complete
        if not complete:
            self._form = None

    def _read_closing(self, form: int, final: bool) -> Iterator[Delta]:
        for closer in self._format.closers[form]:
            if closed := closer.full.match(self._held):
                name = closed.groupdict().get("name")
                if name is None:
                    self._held = self._held[closed.end() :]
                    self._form = None
                    return
                if name in self._functions:
                    yield from self._begin_call(form, closed)
                    return
            elif closer.partial.match(self._held):
                if final:
                    self._held = ""
                return
        self._form = None
        yield from self._read_content(final)

    def _say(self, text: str) -> Iterator[Delta]:
        """Content, less the blanks at its end, which come with what follows, and those behind a call."""
        text = self._blanks + text
        if self._behind_call:
            text = text.lstrip()
        kept = text.rstrip()
        self._blanks = text[len(kept) :]
        if kept:
            self._fresh = self._behind_call = False
            yield ContentDelta(kept)


def collect(deltas: Iterable[Delta], *, keep_broken: bool = False) -> ToolAnswer:
    """The whole answer that deltas come to.

    Calls that broke off become content again, as the model wrote them, unless `keep_broken`: where a call
    was forced, there is no content, and what there is of it is given out, as OpenAI does at `max_tokens`.
    """
    content: list[str] = []
    calls: list[ToolCall] = []
    begun: CallBegin | None = None
    arguments: list[str] = []
    for delta in deltas:
        match delta:
            case ContentDelta():
                content.append(delta.text)
            case CallBegin():
                begun, arguments = delta, []
            case ArgumentsDelta():
                arguments.append(delta.text)
            case CallEnd() if begun is not None and (delta.complete or keep_broken):
                calls.append(ToolCall(begun.id, begun.name, "".join(arguments)))
            case CallEnd():
                content.append(delta.text)
    text = "".join(content)
    return ToolAnswer(text if text or not calls else None, tuple(calls))
