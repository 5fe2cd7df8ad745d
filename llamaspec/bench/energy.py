"""Energy that the machine has used, where it tells: Intel's and AMD's RAPL counters, NVIDIA's NVML."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaspec.closing import Closing

POWERCAP = Path("/sys/class/powercap")
FINE = 0.002
"""Seconds between two values of a counter up to which single rounds can be told apart."""

_RAPL_STEP, _NVML_STEP = 0.001, 0.1


class Meter(Closing):
    """Joules of processors and GPUs so far, from any beginning. `step`: seconds between two values."""

    def __init__(self, counters: Sequence[Callable[[], float]], step: float, opened: ExitStack) -> None:
        self.step = step
        self._counters = counters
        self._opened = opened

    def __call__(self) -> float:
        return sum(counter() for counter in self._counters)

    def close(self) -> None:
        self._opened.close()


def open_meter(*, gpu: bool, powercap: Path = POWERCAP) -> Meter | None:
    """What counts the energy of the processors and, where a `gpu` computes, of NVIDIA's GPUs.

    None where what computes is not counted: it needs a right that people often lack (RAPL), or is no
    NVIDIA GPU.
    """
    opened = ExitStack()
    processors: list[Callable[[], float]] = [*_rapl(powercap)]
    gpus = _nvml(opened) if gpu else []
    if not (gpus if gpu else processors):
        opened.close()
        return None
    return Meter([*processors, *gpus], _NVML_STEP if gpus else _RAPL_STEP, opened)


@dataclass(slots=True)
class _RaplCounter:
    """Microjoules that begin anew after `span`."""

    file: Path
    span: int
    last: int
    total: int = 0

    def __call__(self) -> float:
        now = int(self.file.read_text())
        self.total += (now - self.last) % self.span
        self.last = now
        return self.total / 1e6


def _rapl(folder: Path) -> list[_RaplCounter]:
    """A counter for each processor and for memory that is counted apart; none where they can't be read."""
    counters = []
    for zone in sorted(folder.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
            # The others are parts of a package, or the whole platform with the packages in it.
            if name.startswith("package") or name == "dram":
                span = int((zone / "max_energy_range_uj").read_text()) + 1
                file = zone / "energy_uj"
                counters.append(_RaplCounter(file, span, int(file.read_text())))
        except (OSError, ValueError):
            return []
    return counters


def _nvml(opened: ExitStack) -> list[Callable[[], float]]:
    import pynvml

    try:
        pynvml.nvmlInit()
        opened.callback(pynvml.nvmlShutdown)
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        counters = [_nvml_counter(pynvml, handle) for handle in handles]
        for counter in counters:
            counter()
    except pynvml.NVMLError:
        return []
    return counters


def _nvml_counter(pynvml: Any, handle: Any) -> Callable[[], float]:
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
