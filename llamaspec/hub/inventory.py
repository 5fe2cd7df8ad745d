"""The models in the caches, ours and the hub's: list and remove."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamaspec.errors import FileMissingError, UsageError
from llamaspec.hub.cache import (
    cache_root,
    complete_path,
    forget_sha256,
    lock_path,
    models_folder,
    partial_folder,
    remembered_sha256,
)
from llamaspec.hub.huggingface import cached_sha256, scan_cache
from llamaspec.hub.names import is_gguf, quantisation, shard_names

if TYPE_CHECKING:
    from huggingface_hub import CachedFileInfo


@dataclass(frozen=True, slots=True)
class CachedModel:
    """`name` is unique and names the model again: for the hub's it is a reference.

    `paths`: its files as they lie in the cache, all shards and revisions. `size`: bytes on the disk.
    `complete` is False for what an unfinished pull left.
    """

    name: str
    paths: tuple[Path, ...]
    size: int
    quantisation: str | None
    sha256: str | None
    repo: str | None
    complete: bool = True

    @property
    def file(self) -> str:
        """The file name alone; of a split model, the first shard's."""
        return self.name.rpartition("/")[2]

    @property
    def origin(self) -> str:
        return "package index" if self.repo is None else "Hugging Face"


def list_models() -> list[CachedModel]:
    """All models in the caches, by name."""
    return sorted([*_own_models(), *_hub_models()], key=lambda model: model.name)


def find_models(names: Iterable[str]) -> list[CachedModel]:
    """The models so named, each by its full name or, where only one has it, its file name.

    Raises:
        FileMissingError: there is none. UsageError: several have that file name.
    """
    models = list_models()
    found: dict[str, CachedModel] = {}
    for name in names:
        match [model for model in models if model.name == name] or [
            model for model in models if model.file == name
        ]:
            case [model]:
                found[model.name] = model
            case []:
                raise FileMissingError(
                    f"There is no model {name!r} in the caches.", "`llamaspec ls` shows what there is."
                )
            case several:
                raise UsageError(
                    f"Several models have a file {name!r}.",
                    f"Name one in full: {', '.join(model.name for model in several)}.",
                )
    return list(found.values())


def is_in_cache(path: Path) -> bool:
    """Whether the folder of `path` belongs to one of the caches, where only fetched files have a place."""
    from huggingface_hub import constants

    roots = (cache_root(), Path(constants.HF_HUB_CACHE))
    return any(path.parent.resolve().is_relative_to(root.resolve()) for root in roots)


def remove(model: CachedModel) -> None:
    """Delete a model that `list_models` gave: those files and nothing else.

    A file that several revisions of a repository share goes with all of them; it was listed as one.
    """
    for path in model.paths:
        if path.is_file():
            forget_sha256(path)
    if model.repo is None:
        _remove_own(model.paths[0])
    else:
        _remove_from_hub(set(model.paths))


def _own_models() -> Iterator[CachedModel]:
    """Names get the hash's folder in front where two differ in nothing else."""
    entries = [entry for entry in sorted(models_folder().glob("*/*")) if _is_own_model(entry)]
    names = [(complete_path(entry) or entry).name for entry in entries]
    for entry, name in zip(entries, names, strict=True):
        files = [file for file in entry.rglob("*") if file.is_file()] if entry.is_dir() else [entry]
        yield CachedModel(
            name=name if names.count(name) == 1 else f"{entry.parent.name}/{entry.name}",
            paths=(entry,),
            size=sum(file.stat().st_size for file in files),
            quantisation=quantisation(name),
            sha256=None if entry.is_dir() else remembered_sha256(entry),
            repo=None,
            complete=entry.is_file(),
        )


def _is_own_model(entry: Path) -> bool:
    return entry.is_file() or (entry.is_dir() and complete_path(entry) is not None)


def _hub_models() -> Iterator[CachedModel]:
    """One for each model file of a repository, whatever the number of revisions that have it."""
    cache = scan_cache()
    for repo in cache.repos if cache else ():
        if repo.repo_type != "model":
            continue
        files: dict[str, list[CachedFileInfo]] = {}
        for revision in repo.revisions:
            for file in revision.files:
                if is_gguf(file.file_name):
                    name = file.file_path.relative_to(revision.snapshot_path).as_posix()
                    files.setdefault(name, []).append(file)
        for first in sorted({shard_names(name)[0] for name in files}):
            shards = shard_names(first)
            present = [file for shard in shards for file in files.get(shard, ())]
            blobs = {file.blob_path: file.size_on_disk for file in present}
            yield CachedModel(
                name=f"{repo.repo_id}/{first}",
                paths=tuple(sorted(file.file_path for file in present)),
                size=sum(blobs.values()),
                quantisation=quantisation(first),
                sha256=cached_sha256(files[first][0].file_path)
                if len(blobs) == 1 and first in files
                else None,
                repo=repo.repo_id,
                complete=all(shard in files for shard in shards),
            )


def _remove_own(entry: Path) -> None:
    from filelock import FileLock

    path = complete_path(entry) or entry
    if not path.is_relative_to(models_folder()):
        raise UsageError(f"{path} is not in the cache.")
    with FileLock(lock_path(path)):
        path.unlink(missing_ok=True)
        shutil.rmtree(partial_folder(path), ignore_errors=True)
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def _remove_from_hub(paths: set[Path]) -> None:
    """Through a fresh scan: only what the hub's cache still has is touched, and only within it."""
    cache = scan_cache()
    if cache is None:
        return
    holders = {
        revision.commit_hash: [file for file in revision.files if file.file_path in paths]
        for repo in cache.repos
        for revision in repo.revisions
    }
    cache.delete_files(*[file for files in holders.values() for file in files]).execute()
    # A revision that is left without files goes too, with its refs; this needs to see what is left.
    if cache := scan_cache():
        emptied = [
            revision.commit_hash
            for repo in cache.repos
            for revision in repo.revisions
            if not revision.files and holders.get(revision.commit_hash)
        ]
        cache.delete_revisions(*emptied).execute()
