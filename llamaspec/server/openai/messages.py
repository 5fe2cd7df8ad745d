"""Messages of a conversation: what is taken of them, and what chat templates get."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from llamaspec.server.fields import Body, Text
from llamaspec.server.problems import ApiError

MAX_MESSAGES = 4096
MAX_PARTS = 256
MAX_CALLS = 128

Name = Annotated[str, Field(min_length=1, max_length=256)]


def _only_text(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind != "text":
        raise ValueError(f"a part of type {kind[:40]!r} is not taken: only text is, and nothing is fetched")
    return part


class TextPart(Body):
    """A part of a message's content. Pictures, sound and files are refused."""

    type: Literal["text"]
    text: Text


Parts = Annotated[
    tuple[Annotated[TextPart, BeforeValidator(_only_text)], ...],
    Field(min_length=1, max_length=MAX_PARTS, fail_fast=True),
]
Content = Text | Parts


class CalledFunction(Body):
    name: Name
    arguments: Text = Field(description="JSON as text")


class CalledTool(Body):
    """A tool call that an earlier answer made."""

    id: Name | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class SystemMessage(Body):
    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None


class UserMessage(Body):
    role: Literal["user"]
    content: Content
    name: Name | None = None


class ToolMessage(Body):
    role: Literal["tool"]
    content: Content
    tool_call_id: Name | None = None
    name: Name | None = None


class AssistantMessage(Body):
    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: Annotated[tuple[CalledTool, ...], Field(max_length=MAX_CALLS, fail_fast=True)] | None = None
    reasoning_content: Text | None = None
    name: Name | None = None
    refusal: Text | None = Field(
        None, description="as in an answer that is sent back; not shown to the model"
    )
    annotations: tuple[()] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "AssistantMessage":
        if self.content is None and not self.tool_calls and self.refusal is None:
            raise ValueError("an assistant's message has content or tool_calls")
        return self


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


def for_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates know them: text content, and the developer as the system."""
    prepared = []
    for message in messages:
        plain = message.model_dump(exclude_none=True, exclude={"refusal", "annotations"})
        plain["role"] = "system" if message.role == "developer" else message.role
        if message.content is not None:
            plain["content"] = text_of(message.content)
        prepared.append(plain)
    return prepared


def text_of(content: str | tuple[TextPart, ...], between: str = "\n") -> str:
    """Parts are lines of one text."""
    return content if isinstance(content, str) else between.join(part.text for part in content)


def split_prefill(messages: Sequence[Message], continue_final: bool | None) -> tuple[Sequence[Message], str]:
    """The messages to render, and the beginning of the answer: an assistant's message at the end goes on.

    `continue_final` false makes it a message like the others, true asks for one. Raises ApiError.
    """
    last = messages[-1]
    goes_on = isinstance(last, AssistantMessage) and last.content is not None and not last.tool_calls
    if continue_final and not goes_on:
        message = "continue_final_message: it needs an assistant's message with content at the end."
        raise ApiError(400, message, param="continue_final_message")
    if not goes_on or continue_final is False:
        return messages, ""
    assert last.content is not None
    if len(messages) > 1 and messages[-2].role == "assistant":
        raise ApiError(400, "messages: two of the assistant at the end can't both go on.", param="messages")
    if len(messages) == 1:
        raise ApiError(400, "messages: there is none to answer.", param="messages")
    return messages[:-1], text_of(last.content, "\n\n")  # here llama-server takes parts as paragraphs
