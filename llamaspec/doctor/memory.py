"""Memory of the host: how much there is, and whether the default pair fits."""

from collections.abc import Iterator

import psutil

from llamaspec.doctor.check import Finding, Visit, attention, ok
from llamaspec.native.devices import available_memory

_GIB = 1 << 30
_BESIDE_WEIGHTS = _GIB // 2  # the default context's KV caches, compute buffers and Python
_LITTLE = 0.1


def run(visit: Visit) -> Iterator[Finding]:
    whole, available, swap = psutil.virtual_memory().total, available_memory(), psutil.swap_memory()
    needed = _BESIDE_WEIGHTS + sum(
        source.size or 0 for source in (visit.profile.main, visit.profile.draft) if source
    )
    details = (
        f"the default pair takes about {needed / _GIB:.1f} GiB",
        f"swap: {swap.used / _GIB:.1f} of {swap.total / _GIB:.1f} GiB are in use",
    )
    free = f"{available / _GIB:.1f} of {whole / _GIB:.1f} GiB are free"
    if available < needed:
        yield attention(
            f"{free}, and the default pair takes about {needed / _GIB:.1f} GiB.",
            "Close other programs, or take a smaller model: `llamaspec run -p smollm2-135m`.",
            *details,
        )
    elif swap.used and available < _LITTLE * whole:
        yield attention(
            f"{free}, and the system has begun to swap, which makes everything slow.",
            "Close other programs.",
            *details,
        )
    else:
        yield ok(f"{free}.", *details)
