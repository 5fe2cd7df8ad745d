"""Hugging Face, through huggingface_hub and into its normal cache: its environment variables, token and
offline mode all hold. The one place where its exceptions, and those of the HTTP library under it, are met.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaspec.errors import HashMismatchError, ModelFetchError, ModelNotFoundError, NetworkError
from llamaspec.hub.cache import forget_sha256, is_file_with, require_room, storage_error
from llamaspec.hub.models import Progress, tracked
from llamaspec.hub.names import is_gguf
from llamaspec.hub.sources import HubMirror

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo, ModelInfo

# For the first answer of the hub. hf_hub_download alone would retry for minutes where nothing answers, so
# it is called only after one request went through.
ANSWER_SECONDS = 5.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the hub says of a file; `sha256` for files in its large file storage, as models are."""

    size: int | None
    sha256: str | None

    def check(self, place: HubMirror, sha256: str | None, size: int | None) -> None:
        """Raises HashMismatchError unless this can be the file with `sha256` and `size`, where promised."""
        if (sha256 and self.sha256 and sha256 != self.sha256) or (size and self.size and size != self.size):
            raise HashMismatchError(
                f"{place.repo}/{place.file} at {place.revision} is not the file that was promised: "
                f"it has {self.size} bytes and SHA-256 {self.sha256}.",
                "Its owner may have replaced it: correct the profile, or pin a revision.",
            )


@dataclass(frozen=True, slots=True)
class Repository:
    """What the hub says of a repository: the commit that a revision stands for, the licence in its owner's
    words, and the files."""

    commit: str | None
    licence: str | None
    files: Mapping[str, RemoteFile]


def cached_file(place: HubMirror) -> Path | None:
    """The file in the hub's cache, at the commit that its revision was last seen at. No network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place.repo, place.file, revision=place.revision)
    return Path(found) if isinstance(found, str) else None


def cached_commit(place: HubMirror) -> str | None:
    """The commit that the file in the hub's cache is of. No network."""
    path = cached_file(place)
    return path.parents[place.file.count("/")].name if path else None


def cached_sha256(path: Path) -> str | None:
    """The SHA-256 that the hub gave for a file in its cache: the name of the blob that the snapshot links to.

    Only the first link counts: that blob may itself link into a store named by other hashes.
    """
    name = path.readlink().name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def cached_names(repo: str, revision: str) -> list[str]:
    """The GGUF files of a repository that are in the cache, as the repository names them. No network."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    ref = folder / "refs" / revision
    snapshot = folder / "snapshots" / (ref.read_text() if ref.is_file() else revision)
    return [
        path.relative_to(snapshot).as_posix()
        for path in snapshot.rglob("*")
        if is_gguf(path.name) and path.is_file()
    ]


def scan_cache() -> "HFCacheInfo | None":
    """What is in the hub's cache; None where there is no cache yet. No network."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        return scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return None


def list_names(repo: str, revision: str) -> list[str]:
    """All files of a repository.

    Raises:
        ModelFetchError: with its kinds, where the repository can't be read.
    """
    return [sibling.rfilename for sibling in _model_info(repo, revision).siblings or ()]


def describe(repo: str, revision: str) -> Repository:
    """A repository in one request. Errors: as `list_names`."""
    info = _model_info(repo, revision, files_metadata=True)
    card: Any = info.card_data or {}
    licence = card.get("license_name") or card.get("license")
    return Repository(
        info.sha,
        licence if isinstance(licence, str) else None,
        {
            file.rfilename: RemoteFile(file.size, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or ()
        },
    )


def _model_info(repo: str, revision: str, files_metadata: bool = False) -> "ModelInfo":
    from huggingface_hub import HfApi

    with _as_our_errors(repo):
        return HfApi().model_info(
            repo, revision=revision, timeout=ANSWER_SECONDS, files_metadata=files_metadata
        )


def download(place: HubMirror, sha256: str | None, size: int | None, progress: Progress) -> Path:
    """The file, checked against `sha256` and `size` or else the hub's own hash, in the hub's cache.

    Raises:
        HashMismatchError: the hub has other bytes, or gave other bytes than it has; those are deleted.
        ModelFetchError: with its kinds, for everything else that goes wrong.
    """
    from huggingface_hub import constants, hf_hub_download

    remote = _ask(place)
    remote.check(place, sha256, size)
    with _as_our_errors(place.repo):
        if cached_file(place) is None:
            require_room(Path(constants.HF_HUB_CACHE), remote.size or 0)
        path = Path(
            hf_hub_download(
                place.repo,
                place.file,
                revision=place.revision,
                etag_timeout=ANSWER_SECONDS,
                tqdm_class=_bar_class(f"Fetching {place.file.rpartition('/')[2]}", progress),
            )
        )
        promised = sha256 or remote.sha256
        if promised and not is_file_with(path, promised, progress):
            _delete(path)
            raise HashMismatchError(
                f"{place.repo}/{place.file} arrived damaged and was deleted.", "Pull it again."
            )
    return path


def _ask(place: HubMirror) -> RemoteFile:
    """One request, no retries: is the hub there, may we read the file, and what is it?"""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with _as_our_errors(place.repo):
        url = hf_hub_url(place.repo, place.file, revision=place.revision)
        found = get_hf_file_metadata(url, timeout=ANSWER_SECONDS)
    etag = found.etag or ""
    return RemoteFile(found.size, etag if _SHA256.fullmatch(etag) else None)


def _delete(path: Path) -> None:
    forget_sha256(path)
    if path.is_symlink():
        blob = path.parent / path.readlink()
        path.unlink()
        blob.unlink(missing_ok=True)
    else:
        path.unlink()


def _bar_class(task: str, progress: Progress) -> Any:
    """What huggingface_hub takes for a tqdm class, telling `progress` instead of drawing.

    It uses one bar for bytes written, and a second for bytes transferred unless there is `update_transfer`.
    """

    class Bar:
        def __init__(self, *_: object, total: int | None = None, initial: int = 0, **__: object) -> None:
            self.n = initial
            self.total = total
            self._tracked = tracked(progress, task, total)
            self._tracked.__enter__()
            progress.advance(initial)

        def update(self, count: float | None = 1) -> None:
            self.n += int(count or 0)
            progress.advance(int(count or 0))

        def update_transfer(self, count: float) -> None: ...

        def set_postfix_str(self, *_: object, **__: object) -> None: ...

        set_transfer_postfix_str = set_postfix_str

        def close(self) -> None:
            self.__exit__(None, None, None)

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *exception: Any) -> None:
            self._tracked.__exit__(*exception)

    return Bar


@contextmanager
def _as_our_errors(repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    # Of httpx or its successor, by the release of huggingface_hub: known as a base of the hub's own error.
    transport_error: type[Exception] = next(
        base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"
    )
    try:
        yield
    except (transport_error, OSError, RuntimeError) as error:  # hf_xet raises RuntimeError
        raise _our_error(error, repo, transport_error) from error


def _our_error(error: Exception, repo: str, transport_error: type) -> ModelFetchError:
    from huggingface_hub import errors

    log_in = "If it exists, `hf auth login` or HF_TOKEN gives access to what you may read."
    match error:
        case errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError():
            return NetworkError("Hugging Face is not asked: offline mode is on.", "Unset HF_HUB_OFFLINE.")
        case errors.GatedRepoError():
            return ModelFetchError(
                f"{repo} is gated: its owner asks for an agreement first.",
                f"Accept it on https://huggingface.co/{repo}, then `hf auth login` or set HF_TOKEN.",
            )
        case errors.RevisionNotFoundError():
            return ModelNotFoundError(f"{repo} has no such revision.")
        case errors.EntryNotFoundError():
            return ModelNotFoundError(f"{repo} has no such file.")
        case errors.RepositoryNotFoundError():
            return ModelNotFoundError(f"Hugging Face has no public repository {repo}.", log_in)
        case errors.HfHubHTTPError(response=response):
            status = response.status_code
            if status in (401, 403):
                return ModelFetchError(f"Hugging Face refused access to {repo} (HTTP {status}).", log_in)
            if status == 404:
                return ModelNotFoundError(f"Hugging Face has no such file in {repo}.", log_in)
            return NetworkError(f"Hugging Face answered with HTTP {status}.", "Try again later.")
        case errors.FileMetadataError():
            return NetworkError("Something other than Hugging Face answered.", "Is a proxy in between?")
        case OSError(errno=int()) if not isinstance(error, ConnectionError | TimeoutError):
            return storage_error(error)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    verb = "does not answer" if isinstance(error, transport_error) else "broke off"
    return NetworkError(f"Hugging Face {verb}: {reason}.", "Check the network, HF_ENDPOINT and proxies.")
