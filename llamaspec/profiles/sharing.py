"""A profile as it can be given to others: whole for them, and with nothing of this machine's in it."""

from dataclasses import dataclass

from llamaspec.errors import ProfileError
from llamaspec.hub.cache import sha256_of
from llamaspec.hub.fetch import fetch
from llamaspec.hub.models import NoProgress, Progress
from llamaspec.hub.sources import LocalSource, ModelSource
from llamaspec.profiles.known import published_source
from llamaspec.profiles.profile import Profile, dump, overlay, parse_profile


@dataclass(frozen=True, slots=True)
class Shared:
    """YAML for others; `remarks` say what was left out, replaced, or is worth a look before publishing."""

    profile: Profile
    text: str
    remarks: tuple[str, ...]


def share(profile: Profile, progress: Progress | None = None) -> Shared:
    """Reads back equal, also as a profile from elsewhere.

    Raises:
        ProfileError: a model is a file of this machine and nobody knows where else it can be had, or the
            profile holds what others' llamaspec refuses.
        ModelFileError, HashMismatchError: such a file is not there, or is another one.
    """
    remarks = []
    cleaned = profile.model_copy(update={"origin": None})
    if profile.origin is not None:
        remarks.append(f"origin is left out: it was added from {profile.origin}.")
    if profile.speculation.corpus is not None:
        named = [name for name in profile.speculation.drafters if name != "corpus"]
        cleaned = overlay(cleaned, {"speculation": {"corpus": None, "drafters": named}})
        remarks.append("speculation.corpus is left out: it names files of this machine.")
    for role, source in (("main", profile.main), ("draft", profile.draft)):
        if isinstance(source, LocalSource):
            published = _published(role, source, progress or NoProgress())
            cleaned = cleaned.model_copy(update={role: published})
            remarks.append(f"{role}.path is replaced: the same file is {published.repo}/{published.file}.")
    if profile.chat.system is not None:
        remarks.append("chat.system, your system prompt, is in it.")
    text = dump(cleaned)
    if parse_profile(text.encode(), profile.name, foreign=True) != cleaned:
        raise ProfileError(f"{profile.name} does not survive being written.")
    return Shared(cleaned, text, tuple(remarks))


def _published(role: str, source: LocalSource, progress: Progress) -> ModelSource:
    path = fetch(source, progress).path
    if (published := published_source(sha256_of(path, progress))) is None:
        raise ProfileError(
            f"{role}.path: {path.name} is a file of this machine, and no place is known where others get it.",
            "Name its `repo` and `file` on the hub in place of `path`, or the model that it was made from.",
        )
    return published
