"""The GPUs that are here: usable, or why not and what to do about it."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from llamaspec.doctor.build import BuildTrouble, Gpu, wanted_binding
from llamaspec.doctor.check import Finding, Visit, attention, ok
from llamaspec.native.devices import (
    CUDA,
    ROCM,
    GpuBuild,
    Machine,
    find_gpu,
    reinstall_command,
    this_machine,
)

_GIB = 1 << 30
_KFD = "/dev/kfd"
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVIDIA's driver says: its version, the newest CUDA that it can run, the cards; or its error."""

    version: str = ""
    cuda: str = ""
    cards: tuple[str, ...] = ()
    error: str = ""


def run(visit: Visit) -> Iterator[Finding]:
    machine, build = this_machine(), visit.build
    suited = find_gpu(machine)
    if isinstance(build, BuildTrouble):
        yield attention(
            "Whether a GPU can be used is not known while the binding does not work.",
            "Repair the binding first: `llamaspec doctor binding` says how.",
            *([f"There are traces of a GPU for {suited.backend}."] if suited else []),
        )
    elif build.gpus:
        names = dict.fromkeys(f"{gpu.description} ({gpu.name})" for gpu in build.gpus)
        yield ok(f"Usable: {', '.join(names)}.", *map(_room, build.gpus))
    elif suited is None:
        yield ok("There is no GPU here that llama.cpp could use: the processor computes.")
    elif not build.offloads:
        yield attention(
            f"There is a GPU here, and the installed llama-cpp-python was built without {suited.backend}.",
            f"Build it with {suited.backend} (needs {suited.needs}):\n{_rebuild(suited, machine)}",
            *_told(read_nvidia_driver() if suited is CUDA else None),
        )
    else:
        driver = read_nvidia_driver() if suited is CUDA else None
        yield unusable(suited, machine, driver, os.environ, kfd_allowed=_may_use(_KFD))


def unusable(
    suited: GpuBuild,
    machine: Machine,
    driver: Driver | None,
    environment: Mapping[str, str],
    *,
    kfd_allowed: bool,
) -> Finding:
    """Why a build that can offload finds no GPU where there are traces of one."""
    sentence = f"There are traces of a GPU for {suited.backend}, and llama.cpp finds none that it can use"
    told = _told(driver)
    for name in _HIDING:
        if name in environment:
            return attention(f"{sentence}: {name} hides it.", f"Unset {name}, or name the GPU in it.", *told)
    if suited is ROCM and not kfd_allowed:
        return attention(
            f"{sentence}: you may not open {_KFD}.",
            "Join the groups that may, then log in again:\nsudo usermod -aG render,video $USER",
        )
    if driver is None:
        return attention(
            f"{sentence}.", f"Build it with {suited.backend}:\n{_rebuild(suited, machine)}", *told
        )
    if driver.error:
        return attention(f"{sentence}: {driver.error}.", _driver_remedy(driver.error), *told)
    if not driver.cards:
        return attention(
            f"{sentence}: the driver has no card.",
            "In a container, start it with the GPU (`--gpus all`); else see that the card is in its slot.",
            *told,
        )
    return attention(
        f"{sentence}: its driver runs CUDA up to {driver.cuda}, and the build may need a newer one.",
        f"Update the driver, or build with a CUDA toolkit up to {driver.cuda}:\n{_rebuild(suited, machine)}",
        *told,
    )


def _driver_remedy(error: str) -> str:
    lower = error.lower()
    if "mismatch" in lower:
        return "The driver was updated while it ran: restart the machine."
    if "not loaded" in lower:
        return "Load the driver, or install it anew if this fails:\nsudo modprobe nvidia"
    if "permission" in lower:
        return "Your user may not use the card: ask the machine's administrator for access to /dev/nvidia*."
    return "Install NVIDIA's driver; in a container, start it with the GPU (`--gpus all`)."


def read_nvidia_driver() -> Driver:
    """Never raises."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Driver(error=str(error))
    try:
        cuda = pynvml.nvmlSystemGetCudaDriverVersion()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        cards = tuple(_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
        version = _text(pynvml.nvmlSystemGetDriverVersion())
        return Driver(version, f"{cuda // 1000}.{cuda % 1000 // 10}", cards)
    except pynvml.NVMLError as error:
        return Driver(error=str(error))
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _told(driver: Driver | None) -> list[str]:
    if driver is None:
        return []
    if driver.error:
        return [f"the driver says: {driver.error}"]
    return [f"driver {driver.version}, CUDA up to {driver.cuda}: {', '.join(driver.cards) or 'no cards'}"]


def _room(gpu: Gpu) -> str:
    return f"{gpu.name}: {gpu.free_bytes / _GIB:.1f} of {gpu.total_bytes / _GIB:.1f} GiB are free"


def _may_use(path: str) -> bool:
    return os.access(path, os.R_OK | os.W_OK)


def _rebuild(suited: GpuBuild, machine: Machine) -> str:
    return reinstall_command(suited, machine.system, sys.executable, wanted_binding())
