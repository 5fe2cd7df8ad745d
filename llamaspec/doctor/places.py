"""Where llamaspec keeps things, for the checks that look there."""

from collections.abc import Iterator
from pathlib import Path

from llamaspec.hub.cache import model_path, models_folder
from llamaspec.hub.huggingface import cached_file
from llamaspec.hub.references import expanded
from llamaspec.hub.sources import HubMirror, LocalSource, ModelSource, Source
from llamaspec.profiles import Profile


def sources(profile: Profile) -> list[Source]:
    return [source for source in (profile.main, profile.draft) if source is not None]


def file_name(source: Source) -> str:
    named = source.path if isinstance(source, LocalSource) else source.file
    return named.replace("\\", "/").rpartition("/")[2]


def find_file(source: Source) -> Path | None:
    """The model's file on this machine, with the promised size and not read; None where there is none."""
    places = [expanded(source.path)] if isinstance(source, LocalSource) else _in_caches(source)
    return next((path for path in places if _has_size(path, source.size)), None)


def _in_caches(source: ModelSource) -> Iterator[Path]:
    if source.sha256:
        yield model_path(source.sha256, file_name(source))
    own = HubMirror(repo=source.repo, file=source.file, revision=source.revision)
    for place in (own, *source.mirrors):
        if isinstance(place, HubMirror) and (path := cached_file(place)):
            yield path


def _has_size(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)


def hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def caches() -> dict[str, Path]:
    """By what they are to people."""
    return {"the model cache": models_folder(), "the hub's cache": hub_cache()}


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
