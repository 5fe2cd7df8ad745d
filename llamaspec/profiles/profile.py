"""What a profile holds, and how it is checked, overlaid and written."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError

from llamaspec.errors import UsageError
from llamaspec.hub.sources import Source, stays_inside
from llamaspec.profiles.document import CORE_SCALARS, problems_error, read_document
from llamaspec.profiles.foreign import FOREIGN_HINT, foreign_problems
from llamaspec.profiles.problems import dotted, find_problems
from llamaspec.provenance import Provenance
from llamaspec.settings import (
    ChatSettings,
    Line,
    RuntimeSettings,
    SamplingSettings,
    Settings,
    SpeculationSettings,
    one_line,
    with_mode,
)

NAME = re.compile(r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$")
NAME_HINT = "It is made of lower-case letters and digits, joined by '.', '-' or '_'."
SCHEMA_ID = "urn:llamaspec:profile:1"


ProfileName = Annotated[
    str, StringConstraints(pattern=NAME.pattern, max_length=64), AfterValidator(stays_inside)
]


def _is_a_number(version: Any) -> Any:
    """To Python `true` and 1.0 equal 1, and a literal's check is for equality."""
    if isinstance(version, bool | float):
        raise ValueError("must be the whole number 1")
    return version


Version = Annotated[Literal[1], BeforeValidator(_is_a_number)]
Origin = Annotated[str, StringConstraints(min_length=1, max_length=2000), AfterValidator(one_line)]


class Profile(Settings):
    """A main/draft pair and its settings. In YAML and in Python's arguments the version is `schema`."""

    schema_version: Version = Field(alias="schema", description="version of the format")
    name: ProfileName
    description: Line = ""
    license: Line = Field(default="", description="of the models' weights")
    origin: Origin | None = Field(
        default=None,
        description="where it was added from; while this stands, it can't name files of this machine",
    )
    main: Source
    draft: Source | None = Field(
        default=None, description="absent: plain decoding, or drafts without a model"
    )
    speculation: SpeculationSettings = SpeculationSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    sampling: SamplingSettings = SamplingSettings()
    chat: ChatSettings = ChatSettings()
    provenance: Provenance | None = Field(default=None, description="how its settings were found")


def parse_profile(raw: bytes, origin: str, *, foreign: bool = False) -> Profile:
    """Read and check a profile's YAML; `origin` (a path or an address) names it in errors.

    One that is `foreign`, or says where it was added from, may not act on this machine (`HOST_KEYS`).

    Raises:
        ProfileError: one line for each problem, such as `my.yaml:12: speculation.draft_max: 900 is above 64`.
    """
    document = read_document(raw, origin)
    if (foreign or document.data.get("origin") is not None) and (
        refused := [
            (document.line(key), f"{dotted(key)}: {text}") for key, text in foreign_problems(document.data)
        ]
    ):
        raise problems_error(origin, refused, FOREIGN_HINT)
    try:
        return Profile.model_validate(document.data)
    except ValidationError as error:
        sources = {key: spot.source for key, spot in document.spots.items() if spot.source is not None}
        found = find_problems(error, Profile, document.data, sources)
        raise problems_error(
            origin, [(document.line(key), f"{dotted(key)}: {text}") for key, text in found]
        ) from None


def overlay(profile: Profile, overrides: Mapping[str, Mapping[str, object]]) -> Profile:
    """`profile` with the keys of `overrides` (flags, environment), by section, in place of its own.

    Raises:
        UsageError: the result is not a valid profile; one line of the message for each key that is wrong.
    """
    data = profile.model_dump(by_alias=True)
    for section, values in overrides.items():
        meant = with_mode(values) if section == "speculation" else values
        data[section] = {**(data.get(section) or {}), **meant}
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        found = find_problems(error, Profile, data, {})
        raise UsageError("\n".join(f"{dotted(key)}: {text}" for key, text in found)) from None


def dump(profile: Profile, *, full: bool = False) -> str:
    """YAML that `parse_profile` reads back equal; `full` writes the defaults too."""
    data = profile.model_dump(mode="json", by_alias=True, exclude_defaults=not full)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a profile, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **Profile.model_json_schema(by_alias=True),
        "title": "llamaspec profile",
    }


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or our reader would take for anything but text; a wheel takes one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style="package" in mapping)

    def represent_text(self, data: str) -> yaml.ScalarNode:
        # YAML 1.1 turns these line ends into another one, unless they are escaped.
        odd_line_ends = any(end in data for end in "\r\x85\u2028\u2029")
        style = '"' if odd_line_ends else "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
for _tag, _form, _first in CORE_SCALARS:
    _Dumper.add_implicit_resolver(_tag, _form, _first)
