"""What two profiles differ in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llamaspec.profiles.problems import dotted
from llamaspec.profiles.profile import Profile


@dataclass(frozen=True, slots=True)
class Difference:
    """A key with its value in each profile, as JSON has it; None where there is none."""

    key: str
    first: Any
    second: Any


def differences(first: Profile, second: Profile) -> list[Difference]:
    """By key, in the order of the schema, with defaults in effect."""
    dumped = [profile.model_dump(mode="json", by_alias=True) for profile in (first, second)]
    ours, theirs = (dict(_values(data)) for data in dumped)
    order = list(dumped[0])
    keys = sorted(dict.fromkeys((*ours, *theirs)), key=lambda key: order.index(key[0]))
    return [
        Difference(dotted(key), ours.get(key), theirs.get(key))
        for key in keys
        if ours.get(key) != theirs.get(key)
    ]


def _values(data: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A list is one value; what is null is not there."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _values(value, (*at, name))
        elif value is not None:
            yield (*at, name), value
