"""Profiles: YAML files that name a main/draft pair and its settings.

Found by name, path or address (`find_profile`), checked as a whole (`parse_profile`), overlaid with
flags and environment (`overlay`), written back (`dump`).
"""

from llamaspec.profiles.library import (
    DEFAULT_PROFILE,
    Entry,
    Found,
    find,
    find_profile,
    list_entries,
    list_profiles,
    load_profile,
    shipped_folder,
    user_folder,
)
from llamaspec.profiles.profile import Profile, dump, json_schema, overlay, parse_profile

__all__ = [
    "DEFAULT_PROFILE",
    "Entry",
    "Found",
    "Profile",
    "dump",
    "find",
    "find_profile",
    "json_schema",
    "list_entries",
    "list_profiles",
    "load_profile",
    "overlay",
    "parse_profile",
    "shipped_folder",
    "user_folder",
]
