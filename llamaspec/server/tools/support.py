"""Which tool format a chat template writes, found by rendering: templates have no other way to tell."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llamaspec.errors import TemplateError, UsageError
from llamaspec.server.tools.formats import FORMATS, ToolFormat

_NAME = "probe_function"
_ARGUMENTS = {"probe_argument": "probe value"}
_TAGS = "<parameter=probe_argument>\nprobe value\n</parameter>\n</function>"
_SHORT_ID, _LONG_ID = "abcdef123", "call_0123456789abcdef01234567"
_HINT = "Ask without tools, or give a chat template with tools in the profile (chat: template)."


class Render(Protocol):
    """Renders the chat template, as `TemplateRenderer.render` does."""

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class ToolSupport:
    """What a chat template does with tools. `short_ids`: it takes ids of nine letters and digits only."""

    format: ToolFormat
    short_ids: bool = False

    def new_id(self) -> str:
        """An id for a call, unlike all others."""
        return secrets.token_hex(5)[:9] if self.short_ids else f"call_{secrets.token_hex(12)}"


def find_tools(render: Render) -> ToolSupport:
    """The format in which the template behind `render` has its model call tools.

    Raises UsageError where it has no place for tools, or writes calls in a way that is not known here.
    """
    try:
        takes_tools = _NAME in render([_QUESTION], tools=[_TOOL])
    except TemplateError:
        takes_tools = False
    if not takes_tools:
        raise UsageError("The chat template of this model has no place for tools.", _HINT)
    try:
        text = render(_conversation(_SHORT_ID), tools=[_TOOL])
    except TemplateError:
        text = ""
    for tool_format in FORMATS:
        arguments = _TAGS if tool_format.xml else json.dumps(_ARGUMENTS)
        if tool_format.wrote(text, _NAME, arguments):
            return ToolSupport(tool_format, short_ids=_refuses_long_ids(render))
    raise UsageError(
        "The chat template of this model has it call tools in a format that is not supported.",
        f"Known are {', '.join(tool_format.name for tool_format in FORMATS)}. {_HINT}",
    )


def _refuses_long_ids(render: Render) -> bool:
    try:
        render(_conversation(_LONG_ID), tools=[_TOOL])
    except TemplateError:
        return True
    return False


_QUESTION = {"role": "user", "content": "Hello."}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Probe.",
        "parameters": {
            "type": "object",
            "properties": {"probe_argument": {"type": "string", "description": "Probe."}},
            "required": ["probe_argument"],
        },
    },
}


def _conversation(call_id: str) -> list[dict[str, Any]]:
    call = {"id": call_id, "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
    return [
        _QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "name": _NAME, "content": "Done."},
    ]
