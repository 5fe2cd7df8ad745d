"""Room for models on the disks of the caches."""

import shutil
from collections.abc import Iterator

from llamaspec.doctor.check import Finding, Visit, attention, broken, ok
from llamaspec.doctor.places import caches, existing, find_file, sources

_LEAST = 64 << 20  # for locks, what was measured, and other small files
_COPIES = 2  # a file and the wheels it is made of are there at the same time


def run(visit: Visit) -> Iterator[Finding]:
    absent = [source for source in sources(visit.profile) if find_file(source) is None]
    needed = max(_LEAST, _COPIES * sum(source.size or 0 for source in absent))
    seen: set[int] = set()
    for name, folder in caches().items():
        place = existing(folder)
        if (device := place.stat().st_dev) in seen:
            continue
        seen.add(device)
        yield judge(name, str(place), shutil.disk_usage(place).free, needed)


def judge(name: str, place: str, free: int, needed: int) -> Finding:
    """Of the disk that the folder `place` is on, where `needed` bytes have to go."""
    detail = f"{place}: {free / 1e9:.1f} GB free"
    move = "Make room (`llamaspec rm` removes models), or move the caches with LLAMASPEC_CACHE and HF_HOME."
    if free < _LEAST:
        return broken(f"The disk of {name} is full.", move, detail)
    if free < needed:
        return attention(
            f"{free / 1e9:.1f} GB are free for {name}, and fetching the default pair takes "
            f"{needed / 1e9:.1f} GB.",
            move,
            detail,
        )
    return ok(f"{free / 1e9:.1f} GB are free for {name}.", detail)
