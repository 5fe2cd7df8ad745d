"""What pydantic has against a request body, as one error that names the field."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError

from llamaspec.server.problems import ApiError

_LONGEST = 400  # characters of what a request holds that are told back
_MOST_REASONS = 3

Location = tuple[int | str, ...]


def validation_problem(error: RequestValidationError) -> ApiError:
    """Of all complaints the one about the innermost field: those around it are about other readings.

    A field that may be of several types has one complaint for each; they are told together.
    """
    found = [(_place(entry["loc"], entry["type"], error.body), entry) for entry in error.errors()]
    place = max((place for place, _ in found), key=len)
    entries = [entry for at, entry in found if at == place]
    kind, name = entries[0]["type"], _name(place)
    if kind == "value_error" and not name:  # fields that contradict each other: the text begins with one
        message = _reason(entries[0])
        return ApiError(400, f"{message}.", param=message.partition(":")[0], code="invalid_value")
    if kind == "json_invalid":
        reason = entries[0].get("ctx", {}).get("error", "")
        return ApiError(400, f"The body is not valid JSON: {reason}.", code="invalid_json")
    if not name:
        hint = "or the header Content-Type: application/json is missing"
        return ApiError(400, f"The body is not a JSON object, {hint}.")
    if kind == "extra_forbidden":
        return ApiError(400, f"There is no field {name!r} here.", param=name, code="unknown_parameter")
    if kind == "missing":
        code = "missing_required_parameter"
        return ApiError(400, f"The field {name!r} is missing.", param=name, code=code)
    reasons = list(dict.fromkeys(_reason(entry) for entry in entries))[:_MOST_REASONS]
    return ApiError(400, f"{name}: {'; or '.join(reasons)}.", param=name, code="invalid_value")


def _place(location: Sequence[int | str], kind: str, body: Any) -> Location:
    """Where in the body a complaint points to, without the names of types that pydantic puts between."""
    at: list[int | str] = []
    last = len(location) - 1
    for number, step in enumerate(location[1:], 1):
        if isinstance(body, Mapping) and (step in body or (number == last and kind == "missing")):
            body = body.get(step)
        elif isinstance(body, Sequence) and not isinstance(body, str) and isinstance(step, int):
            body = body[step] if step < len(body) else None
        else:
            continue
        at.append(step)
    return (location[0], *at)


def _name(place: Location) -> str:
    """As in `messages[0].content`."""
    text = ""
    for step in place[1:]:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return _printable(text.removeprefix("."))


def _reason(entry: Mapping[str, Any]) -> str:
    if entry["type"] == "value_error":
        return _printable(str(entry["ctx"]["error"]).rstrip("."))
    if entry["type"] == "union_tag_invalid":
        told = entry["ctx"]
        return _printable(f"its {told['discriminator']} is {told['tag']!r}, and not {told['expected_tags']}")
    if entry["type"] == "union_tag_not_found":
        return f"its {entry['ctx']['discriminator']} is missing"
    reason = _printable(str(entry["msg"]))
    for technical, plain in (("a valid tuple", "an array"), ("a valid dictionary", "an object")):
        reason = reason.replace(technical, plain)
    return reason[:1].lower() + reason[1:]


def _printable(text: str) -> str:
    """Half surrogates are no text that could be sent back."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
