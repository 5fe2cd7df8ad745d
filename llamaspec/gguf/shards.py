"""Models that are split over several files."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from llamaspec.errors import FileMissingError
from llamaspec.gguf.header import Header, read_header, shown


def stamp(path: Path) -> str:
    """What tells a file from others, and from older versions of itself, without reading it."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def read_model(path: str | Path) -> Header:
    """Read the header of a model, which may be split over several files (`…-00001-of-00003.gguf`).

    Any one shard can be named. The result has the first shard's values and all shards' tensors.
    Errors: as `read_header`; FileMissingError names a shard that is not there.
    """
    named = read_header(path)
    count = named.integer("split.count") or 0
    if count <= 1:
        return named
    paths = _shard_paths(named, count)
    shards = [named if shard == named.path else read_header(shard) for shard in paths]
    for number, shard in enumerate(shards):
        if (shard.integer("split.no"), shard.integer("split.count")) != (number, count):
            raise shard.corrupt(f"does not say that it is part {number + 1} of {count}, as its name does")
    first = shards[0]
    tensors = tuple(tensor for shard in shards for tensor in shard.tensors)
    name, uses = Counter(tensor.name for tensor in tensors).most_common(1)[0] if tensors else ("", 0)
    if uses > 1:
        raise first.corrupt(f"and its other parts hold tensor {shown(name)} more than once")
    if first.integer("split.tensors.count") != len(tensors):
        raise first.corrupt(f"and its other parts hold {len(tensors)} tensors, which is not what it promises")
    file_bytes = sum(shard.file_bytes for shard in shards)
    return replace(first, paths=paths, tensors=tensors, file_bytes=file_bytes)


def _shard_paths(named: Header, count: int) -> tuple[Path, ...]:
    number = named.integer("split.no")
    ending = f"-{(number or 0) + 1:05d}-of-{count:05d}.gguf"
    if number is None or not 0 <= number < count or not named.path.name.endswith(ending):
        raise named.corrupt(f"is one part of {count}, and its name does not end in {ending} as it must")
    stem = named.path.name.removesuffix(ending)
    paths = tuple(
        named.path.with_name(f"{stem}-{part:05d}-of-{count:05d}.gguf") for part in range(1, count + 1)
    )
    for part, path in enumerate(paths, start=1):
        if not path.is_file():
            raise FileMissingError(
                f"Part {part} of {count} of this model, {path}, is missing.", "Fetch it too."
            )
    return paths
