"""Conversations with tool calls, from OpenAI's shape to the one that chat templates are written for."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llamaspec.errors import UsageError
from llamaspec.server.tools.support import ToolSupport

_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")


def template_messages(messages: Sequence[Mapping[str, Any]], support: ToolSupport) -> list[dict[str, Any]]:
    """The same messages as templates expect them; those without tool calls are left alone.

    Arguments become objects, null content beside calls becomes empty text, an answer of a tool gets the
    function's `name`, and ids are shortened where the template takes only short ones. Raises UsageError
    for a call that is not one, and for an answer to a call that was not made.
    """
    names: dict[str, str] = {}
    prepared = []
    for at, message in enumerate(messages):
        ready = dict(message)
        if message.get("tool_calls"):
            calls = [
                _call(call, f"messages[{at}].tool_calls[{i}]") for i, call in enumerate(message["tool_calls"])
            ]
            names |= {call["id"]: call["function"]["name"] for call in calls}
            ready["tool_calls"] = [{**call, "id": _id(call["id"], support)} for call in calls]
            ready["content"] = message.get("content") or ""
        else:
            ready.pop("tool_calls", None)  # templates ask whether it is there, not whether it is null
        if message.get("role") == "tool":
            answered = message.get("tool_call_id")
            if answered not in names:
                raise UsageError(f"messages[{at}].tool_call_id: no call before has the id {answered!r}.")
            ready |= {"tool_call_id": _id(answered, support), "name": names[answered]}
        prepared.append(ready)
    return prepared


def _call(call: Any, where: str) -> dict[str, Any]:
    match call:
        case {"id": str(call_id), "function": {"name": str(name), "arguments": str(text)}} if (
            call.get("type", "function") == "function"
        ):
            function = {"name": name, "arguments": _arguments(text, where)}
            return {"id": call_id, "type": "function", "function": function}
    raise UsageError(
        f"{where} is not a function call.",
        "It has an id, the type 'function', and a name and arguments as text.",
    )


def _arguments(text: str, where: str) -> dict[str, Any]:
    """Clients send nothing at all for a function without parameters."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise UsageError(f"{where}.function.arguments is not a JSON object.")
    return arguments


def _id(call_id: str, support: ToolSupport) -> str:
    """The same short id for the same long one, in the call and in its answer."""
    if not support.short_ids or _SHORT_ID.fullmatch(call_id):
        return call_id
    return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:9]
