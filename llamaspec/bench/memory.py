"""What memory settings take, and signs that there is too little of it for a fair measurement."""

import sys
import warnings
from dataclasses import dataclass
from typing import Self

import psutil

from llamaspec.bench.report import Finding
from llamaspec.native.devices import available_memory, list_devices

_SCARCE = 0.05  # of all memory
_SWAPPED = 64 << 20
_REREAD = 1000  # page faults that the disk had to serve

_GIB = 1 << 30


def taken() -> int:
    """Bytes in memory of this process, weights that are mapped into it included, and of all on its GPUs."""
    on_gpus = sum(gpu.total_bytes - gpu.free_bytes for gpu in list_devices() if gpu.kind == "gpu")
    return int(psutil.Process().memory_info().rss) + on_gpus


def scarcity() -> list[Finding]:
    """Whether memory is nearly used up right now."""
    free, whole = available_memory(), psutil.virtual_memory().total
    if free >= _SCARCE * whole:
        return []
    return [
        Finding(
            problem=f"Only {free / _GIB:.1f} of {whole / _GIB:.1f} GiB of memory are free.",
            remedy="Close other programs, compare fewer settings at a time, or take a smaller context (-c).",
        )
    ]


def spilled(name: str, layers: int, of: int, remedy: str = "") -> list[Finding]:
    """Where a GPU has room for some layers of a model alone: the others are evaluated by the processor."""
    if layers >= of:
        return []
    return [
        Finding(
            problem=f"Only {layers} of {of} layers of the {name} model fit on the GPU.",
            remedy=remedy or "Take a smaller quantisation, a smaller context (-c) or a quantised KV cache.",
        )
    ]


def on_battery() -> list[Finding]:
    """Laptops slow down when they run on their battery."""
    battery = getattr(psutil, "sensors_battery", lambda: None)()
    if battery is None or battery.power_plugged is not False:
        return []
    return [Finding(problem="This machine runs on its battery.", remedy="Plug it in and measure again.")]


@dataclass(frozen=True, slots=True)
class Paging:
    """What was moved between memory and disk so far: bytes swapped, and faults that the disk had to serve."""

    swapped: int
    faults: int

    @classmethod
    def now(cls) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where the system doesn't tell
            swap = psutil.swap_memory()
        return cls(swap.sin + swap.sout, _major_faults())

    def findings(self, before: "Paging") -> list[Finding]:
        """What has happened since `before` that slows decoding down."""
        swapped, faults = self.swapped - before.swapped, self.faults - before.faults
        problem = ""
        if swapped > _SWAPPED:
            problem = f"The machine swapped {swapped / _GIB:.2f} GiB during the measurement."
        elif faults > _REREAD:
            problem = f"Weights were read from the disk again during the measurement ({faults} times)."
        if not problem:
            return []
        remedy = "Close other programs, compare fewer settings at a time, or take a smaller model or context."
        return [Finding(problem=problem, remedy=remedy)]


def _major_faults() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
