"""What a profile from elsewhere may not hold.

A profile is foreign if it was fetched, or if it says with `origin` where it was added from. Whoever takes
that line out has read the profile and makes it their own.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llamaspec.profiles.document import Key

FILE_KEYS = (("main", "path"), ("draft", "path"), ("speculation", "corpus"))
"""Keys that hold a path, which is relative to the profile's file."""

HOST_KEYS: dict[Key, str] = {
    **dict.fromkeys(FILE_KEYS, "a profile from elsewhere can't name files of this machine"),
}
"""Keys that act on this machine beyond computing, with the sentence that refuses them: those that name files,
and whatever may come to name hosts, ports or secrets. All others act on what is computed alone."""

FOREIGN_HINT = (
    "Who has read such a profile and wants it so saves it as a file of their own, without its origin."
)

# Characters that reorder what is shown, or that nobody sees: embeddings, overrides and isolates of writing
# direction, invisible spaces and operators, tags. Joiners and direction marks belong to real writing.
_HIDING = re.compile("[\u00ad\u180e\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]")


def foreign_problems(data: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    """(key, sentence) for each thing that `data`, a profile's, must not hold if it is from elsewhere."""
    for key, value in leaves(data):
        if key in HOST_KEYS and value is not None:
            yield key, HOST_KEYS[key]
        if isinstance(value, str) and (hidden := _HIDING.search(value)):
            yield key, f"holds a character that hides or reorders text: U+{ord(hidden[0]):04X}"


def leaves(data: Any, at: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every value in nested mappings and lists, with its key."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from leaves(value, (*at, name))
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from leaves(value, (*at, index))
    else:
        yield at, data
