"""From the engine's events to `choices` in OpenAI's shapes: parts as they are streamed, and whole ones.

A part is an entry of `choices` in one chunk of a stream; a whole choice is put together from its parts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llamaspec.decode.sequence import Request
from llamaspec.errors import ClosedError
from llamaspec.events import (
    Event,
    FinishEvent,
    FinishReason,
    ProgressEvent,
    PromptEvent,
    TextEvent,
    TokenDetail,
)
from llamaspec.server import answers
from llamaspec.server.openai.logprobs import TextLogprobs, chat_logprobs
from llamaspec.server.tools import (
    ArgumentsDelta,
    CallBegin,
    ContentDelta,
    Delta,
    ToolCallStream,
    collect,
)

Part = dict[str, Any]


class Vocabulary(answers.Vocabulary, Protocol):
    """How tokens are written, and which end a text."""

    @property
    def bos(self) -> int | None: ...

    def is_eog(self, token: int) -> bool: ...


class Choice(ABC):
    """One answer to one prompt, on its way. `index` is its place among the choices that are told.

    `tell_details`: parts have `token_details`. `done`: the request may be cancelled, what is still to come is
    not part of the answer.
    """

    def __init__(self, index: int, request: Request, vocabulary: Vocabulary, *, tell_details: bool) -> None:
        self.index = index
        self.request = request
        self.done = False
        self._vocabulary = vocabulary
        self._tell_details = tell_details
        self._untold: list[TokenDetail] = []  # of tokens whose text is yet to come

    def take(self, event: Event) -> list[Part]:
        """What an event adds. Raises ClosedError where the request was cancelled by others."""
        match event:
            case ProgressEvent():
                return [self._part(self._nothing)]
            case PromptEvent():
                return [self._prompt(event)]
            case TextEvent() if not self.done:
                self._untold += event.details
                return [self._part(content) for content in self._contents(event.text)]
            case FinishEvent():
                if event.reason is FinishReason.CANCELLED and not self.done:
                    raise ClosedError("The server is shutting down.")
                held = [self._part(content) for content in self._held()]
                return [*held, self._part(self._nothing, self._finish_reason(event))]
        return []

    @abstractmethod
    def begin(self) -> list[Part]:
        """What is told before anything is known."""

    @abstractmethod
    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The choice in an answer that is not streamed, from all of its parts."""

    _nothing: Mapping[str, Any]

    @abstractmethod
    def _contents(self, text: str) -> list[Mapping[str, Any]]: ...

    @abstractmethod
    def _logprobs(self, details: Sequence[TokenDetail]) -> dict[str, Any] | None: ...

    def _held(self) -> list[Mapping[str, Any]]:
        return []

    def _prompt(self, event: PromptEvent) -> Part:
        raise AssertionError("log-probabilities of the prompt were not asked for")

    def _finish_reason(self, finish: FinishEvent) -> str:
        return "length" if finish.reason is FinishReason.LENGTH else "stop"

    def _part(self, content: Mapping[str, Any], finish_reason: str | None = None) -> Part:
        details, self._untold = self._untold, []
        part = {
            "index": self.index,
            **content,
            "logprobs": self._logprobs(details) if details else None,
            "finish_reason": finish_reason,
        }
        if self._tell_details:
            part["token_details"] = answers.token_details(details, self._vocabulary)
        return part

    def _joined(self, parts: Sequence[Part], content: Mapping[str, Any], logprobs: Any) -> dict[str, Any]:
        whole = {
            "index": self.index,
            **content,
            "logprobs": logprobs,
            "finish_reason": parts[-1]["finish_reason"],
        }
        if self._tell_details:
            whole["token_details"] = [detail for part in parts for detail in part["token_details"]]
        return whole


class ChatChoice(Choice):
    """An answer in a conversation. `calls` finds the tool calls in its text, where there may be some.

    `keep_broken`: a call that breaks off is told as a call, and not as text.
    """

    _nothing: Mapping[str, Any] = {"delta": {}}

    def __init__(
        self,
        index: int,
        request: Request,
        vocabulary: Vocabulary,
        *,
        logprobs: bool = False,
        tell_details: bool = False,
        calls: ToolCallStream | None = None,
        keep_broken: bool = False,
    ) -> None:
        super().__init__(index, request, vocabulary, tell_details=tell_details)
        self._tell_logprobs = logprobs
        self._calls = calls
        self._keep_broken = keep_broken
        self._seen: list[Delta] = []

    def begin(self) -> list[Part]:
        return [self._part({"delta": {"role": "assistant", "content": None}})]

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        answer = collect(self._seen, keep_broken=self._keep_broken)
        message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": None}
        if answer.calls:
            message["tool_calls"] = [call.as_openai() for call in answer.calls]
        told = [entry for part in parts if part["logprobs"] for entry in part["logprobs"]["content"]]
        logprobs = {"content": told, "refusal": None} if self._tell_logprobs else None
        return self._joined(parts, {"message": message}, logprobs)

    def _contents(self, text: str) -> list[Mapping[str, Any]]:
        if self._calls is None:
            return self._deltas([ContentDelta(text)] if text else [])
        return self._deltas(self._calls.feed(text))

    def _held(self) -> list[Mapping[str, Any]]:
        return [] if self._calls is None else self._deltas(self._calls.finish())

    def _deltas(self, found: Sequence[Delta]) -> list[Mapping[str, Any]]:
        self._seen += found
        self.done = self._calls is not None and self._calls.done
        deltas: list[Mapping[str, Any]] = []
        for delta in found:
            match delta:
                case ContentDelta(text):
                    deltas.append({"delta": {"content": text}})
                case CallBegin() | ArgumentsDelta():
                    deltas.append({"delta": {"tool_calls": [delta.as_openai()]}})
        return deltas

    def _finish_reason(self, finish: FinishEvent) -> str:
        # As OpenAI does: where it broke off, what was called before is not all that was to be called.
        if self._calls is None or (finish.reason is FinishReason.LENGTH and not self.done):
            return super()._finish_reason(finish)
        return self._calls.finish_reason or super()._finish_reason(finish)

    def _logprobs(self, details: Sequence[TokenDetail]) -> dict[str, Any] | None:
        if not self._tell_logprobs:
            return None
        spoken = [detail for detail in details if not self._vocabulary.is_eog(detail.token)]
        return chat_logprobs(spoken, self._vocabulary)


class TextChoice(Choice):
    """What comes after a prompt. `echo` is the prompt's text, told in front; "" where it is not asked for."""

    _nothing: Mapping[str, Any] = {"text": ""}

    def __init__(
        self,
        index: int,
        request: Request,
        vocabulary: Vocabulary,
        *,
        logprobs: bool = False,
        tell_details: bool = False,
        echo: str = "",
    ) -> None:
        super().__init__(index, request, vocabulary, tell_details=tell_details)
        self._arrays = TextLogprobs(vocabulary) if logprobs else None
        self._echo = echo
        self._logprob_sum, self._logprob_count = 0.0, 0

    @property
    def mean_logprob(self) -> float:
        """Of the tokens so far, where their log-probabilities were asked for."""
        return self._logprob_sum / max(1, self._logprob_count)

    def begin(self) -> list[Part]:
        if not self._echo or self.request.prompt_logprobs is not None:
            return []
        return [self._part({"text": self._echo})]

    def take(self, event: Event) -> list[Part]:
        if isinstance(event, TextEvent):
            for detail in event.details:
                self._logprob_sum += detail.logprob or 0.0
                self._logprob_count += 1
        return super().take(event)

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        logprobs = None
        if self._arrays is not None:
            logprobs = self._arrays.tell([])
            for told in (part["logprobs"] for part in parts if part["logprobs"]):
                for name, values in told.items():
                    logprobs[name] += values
        return self._joined(parts, {"text": "".join(part["text"] for part in parts)}, logprobs)

    def _contents(self, text: str) -> list[Mapping[str, Any]]:
        return [{"text": text}] if text else []

    def _logprobs(self, details: Sequence[TokenDetail]) -> dict[str, Any] | None:
        return None if self._arrays is None else self._arrays.tell(details)

    def _prompt(self, event: PromptEvent) -> Part:
        assert self._arrays is not None
        first = self.request.prompt[0]
        hidden = first == self._vocabulary.bos and not self._echo.startswith(
            self._vocabulary.special_text(first)
        )
        logprobs = self._arrays.tell([TokenDetail(first, "", 0)], hidden=hidden)
        for name, values in self._arrays.tell(event.details).items():
            logprobs[name] += values
        return {**self._part({"text": self._echo}), "logprobs": logprobs}
