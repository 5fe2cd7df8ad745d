"""A profile made from a main and a draft model: with what the hub, or else the files, say about them."""

import re
from dataclasses import dataclass
from pathlib import Path

from llamaspec.errors import ModelFetchError, ModelNotFoundError, UsageError
from llamaspec.gguf.checks import check_model
from llamaspec.gguf.facts import describe as describe_model
from llamaspec.gguf.header import Header
from llamaspec.gguf.pair import check_pair
from llamaspec.gguf.shards import read_model
from llamaspec.hub import huggingface
from llamaspec.hub.cache import sha256_of
from llamaspec.hub.fetch import fetch, find_cached, locate
from llamaspec.hub.inventory import is_in_cache
from llamaspec.hub.models import NoProgress, Progress
from llamaspec.hub.references import expanded
from llamaspec.hub.sources import HubMirror, LocalSource, ModelSource, Source
from llamaspec.profiles.document import printable
from llamaspec.profiles.known import published_source
from llamaspec.profiles.profile import NAME, NAME_HINT, Profile


@dataclass(frozen=True, slots=True)
class Made:
    """A new profile, and what there is to say about it that it does not hold."""

    profile: Profile
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Described:
    source: Source
    header: Header | None
    licence: str | None
    notes: tuple[str, ...]

    @property
    def stem(self) -> str:
        source = self.source
        name = source.file if isinstance(source, ModelSource) else source.path
        return re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", re.split(r"[/\\]", name)[-1], flags=re.IGNORECASE)


def make_profile(
    main: str,
    draft: str | None = None,
    *,
    name: str | None = None,
    fetch_models: bool = True,
    progress: Progress | None = None,
) -> Made:
    """A profile of two models that are named as files, `owner/repo:QUANT` or `owner/repo/file.gguf`.

    Without `fetch_models` a model that is not here yet stays where it is, and the pair unchecked. A name
    is made from the main model's where none is given.

    Raises:
        PairMismatchError: the draft does not fit. UsageError: the name is none.
        ModelFetchError, ModelFileError: with their kinds, for models that can't be had or used.
    """
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(
            f"{printable(name)!r} can't be a profile's name.",
            NAME_HINT,
        )
    models = [_described(each, fetch_models, progress or NoProgress()) for each in (main, draft) if each]
    notes = [note for model in models for note in model.notes]
    headers = [model.header for model in models if model.header]
    if len(headers) == 2:
        check_pair(*headers)
    elif draft:
        notes.append(
            "Whether the pair fits is not checked, as not all of it is here: "
            f"`llamaspec check {main} {draft}` does that."
        )
    stems = [printable(model.stem)[:200] for model in models]
    profile = Profile(
        schema=1,
        name=name or slug(stems[0]),
        description=" drafted by ".join(stems),
        license=_licences([model.licence for model in models]),
        main=models[0].source,
        draft=models[1].source if draft else None,
    )
    return Made(profile, tuple(notes))


def slug(text: str) -> str:
    """What can be made of a text as a profile's name."""
    words = re.findall(r"[a-z0-9]+(?:[._][a-z0-9]+)*", text.lower())
    return "-".join(words)[:64].rstrip("._-") or "unnamed"


def _described(reference: str, fetch_models: bool, progress: Progress) -> _Described:
    source = locate(reference)
    if isinstance(source, LocalSource):
        path = expanded(source.path).absolute()
        header = _checked_header(path)
        sha256 = sha256_of(path, progress)
        known = published_source(sha256) if is_in_cache(path) else None
        local = LocalSource(path=str(path), sha256=sha256, size=path.stat().st_size)
        return _Described(known or local, header, describe_model(header).licence, ())
    named = source.revision
    source, licence, notes = _asked(source)
    # By the revision that was named, so that the cache knows it by that, too.
    wanted = source.model_copy(update={"revision": named})
    model = fetch(wanted, progress) if fetch_models else find_cached(wanted, progress)
    if model is None:
        return _Described(source, None, licence, notes)
    header = _checked_header(model.path)
    if source.sha256 is None and model.sha256:
        source = source.model_copy(update={"sha256": model.sha256, "size": model.path.stat().st_size})
    return _Described(source, header, licence or describe_model(header).licence, notes)


def _asked(source: ModelSource) -> tuple[ModelSource, str | None, tuple[str, ...]]:
    """The source as the hub has it now, pinned; as it lies in the cache, if the hub does not answer."""
    place = HubMirror(repo=source.repo, file=source.file, revision=source.revision)
    try:
        repository = huggingface.describe(source.repo, source.revision)
    except ModelNotFoundError:
        raise
    except ModelFetchError as error:
        commit = huggingface.cached_commit(place) or source.revision
        note = f"{source.repo}: {error.message} What is filled in comes from the files that are here."
        return source.model_copy(update={"revision": commit}), None, (note,)
    if (file := repository.files.get(source.file)) is None:
        raise ModelNotFoundError(f"{source.repo} has no file {source.file}.")
    known = {"revision": repository.commit or source.revision, "sha256": file.sha256, "size": file.size}
    return source.model_copy(update=known), repository.licence, ()


def _checked_header(path: Path) -> Header:
    header = read_model(path)
    check_model(header)
    return header


def _licences(found: list[str | None]) -> str:
    told = [printable(licence)[:200] if licence else "" for licence in found]
    if len(set(told)) == 1:
        return told[0]
    pairs = zip(told, ("main", "draft"), strict=True)
    return ", ".join(f"{licence or 'unknown'} ({role})" for licence, role in pairs)
