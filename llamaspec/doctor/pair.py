"""The default pair: here, whole, fit to speculate together. Its bytes are read where that is asked for."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from llamaspec.doctor.check import Finding, Visit, attention, broken, ok
from llamaspec.doctor.places import file_name, find_file, sources
from llamaspec.errors import ModelFileError, PairMismatchError
from llamaspec.gguf.checks import check_model
from llamaspec.gguf.pair import check_pair
from llamaspec.gguf.shards import read_model
from llamaspec.hub.cache import forget_sha256
from llamaspec.hub.sources import LocalSource, Source
from llamaspec.profiles import DEFAULT_PROFILE, Profile, find_profile


def run(visit: Visit) -> Iterator[Finding]:
    profile = find_profile(DEFAULT_PROFILE)
    there: list[tuple[Source, Path]] = []
    absent: list[Source] = []
    for source in sources(profile):
        if file := find_file(source):
            there.append((source, file))
        else:
            absent.append(source)
    if absent:
        yield _absent(profile, absent)
        return
    reads_bytes = visit.verbose or "pair" in visit.named
    if reads_bytes and (changed := [each for each in there if not _is_promised(*each)]):
        names = ", ".join(file.name for _source, file in changed)
        yield broken(f"Not the bytes that were promised: {names}.", _get_again(profile, changed))
        return
    try:
        headers = [read_model(file) for _source, file in there]
        for header in headers:
            check_model(header)
        if len(headers) > 1:
            check_pair(*headers)
    except (ModelFileError, PairMismatchError) as error:
        yield broken(error.message, _get_again(profile, there))
        return
    yield ok(
        f"{profile.name} is here{', and its bytes are the promised ones' if reads_bytes else ''}.",
        *(str(file) for _source, file in there),
        *([] if reads_bytes else ["`llamaspec doctor pair` and -v read all its bytes"]),
    )


def _absent(profile: Profile, absent: Sequence[Source]) -> Finding:
    names = ", ".join(map(file_name, absent))
    if any(isinstance(source, LocalSource) for source in absent):
        return broken(
            f"{profile.name} names files that are not here, or of another size: {names}.",
            f"Correct the profile: `llamaspec profile show {profile.name}` prints it.",
        )
    size = sum(source.size or 0 for source in absent)
    return attention(
        f"{profile.name} is not here yet: {size / 1e9:.1f} GB to fetch.",
        f"Fetch it now, or let the first start do so:\nllamaspec pull {profile.name}",
        f"to be fetched: {names}",
    )


def _is_promised(source: Source, file: Path) -> bool:
    """The bytes as they are now: a disk may have changed them since they were checked."""
    if source.sha256 is None:
        return True
    with file.open("rb") as stream:
        matches = hashlib.file_digest(stream, "sha256").hexdigest() == source.sha256
    if not matches:
        forget_sha256(file)
    return matches


def _get_again(profile: Profile, files: Sequence[tuple[Source, Path]]) -> str:
    """What can't be fetched is not removed either."""
    if any(isinstance(source, LocalSource) for source, _file in files):
        return "Get the files again from where they were, or correct the profile."
    names = " ".join(file.name for _source, file in files)
    return f"Fetch anew:\nllamaspec rm {names}\nllamaspec pull {profile.name}"
