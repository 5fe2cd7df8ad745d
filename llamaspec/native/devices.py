"""What this machine computes with: the devices that ggml offers, GPUs that it can't use, cores and memory."""

import ctypes
import ctypes.util
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import psutil

from llamaspec.errors import DeviceError

Kind = Literal["cpu", "gpu", "igpu", "accel"]

_KINDS: tuple[Kind, ...] = ("cpu", "gpu", "igpu", "accel")  # ggml's enum, in its order
_BACKEND_NAMES = {"MTL": "Metal"}
_BACKEND_ALIASES = {"hip": "rocm", "mtl": "metal"}


@dataclass(frozen=True, slots=True)
class Device:
    """A ggml device. `handle` is its ggml_backend_dev_t; it lives as long as the process does."""

    name: str  # unique: CUDA0, Vulkan1, CPU, …
    description: str
    kind: Kind
    backend: str  # CUDA, Metal, Vulkan, ROCm, SYCL, CPU, BLAS, …
    free_bytes: int
    total_bytes: int
    handle: int


def list_devices() -> list[Device]:
    """Every device of the installed build, with the memory that is free right now, in ggml's order.

    A device that doesn't know its memory (some integrated GPUs) shares the host's, so it is given that.
    """
    from llama_cpp._ctypes_extensions import load_shared_library

    from llamaspec.native import api

    api.start()
    ggml = load_shared_library("ggml", api.lib._base_path)
    base = load_shared_library("ggml-base", api.lib._base_path)
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    count = ctypes.CFUNCTYPE(size)(("ggml_backend_dev_count", ggml))
    get = ctypes.CFUNCTYPE(pointer, size)(("ggml_backend_dev_get", ggml))
    name = ctypes.CFUNCTYPE(text, pointer)(("ggml_backend_dev_name", base))
    description = ctypes.CFUNCTYPE(text, pointer)(("ggml_backend_dev_description", base))
    kind = ctypes.CFUNCTYPE(ctypes.c_int, pointer)(("ggml_backend_dev_type", base))
    memory = ctypes.CFUNCTYPE(None, pointer, pointer, pointer)(("ggml_backend_dev_memory", base))
    registry = ctypes.CFUNCTYPE(pointer, pointer)(("ggml_backend_dev_backend_reg", base))
    registry_name = ctypes.CFUNCTYPE(text, pointer)(("ggml_backend_reg_name", base))

    devices = []
    for handle in map(get, range(count())):
        kind_index = kind(handle)
        if not 0 <= kind_index < len(_KINDS):  # a wrapper around several devices, listed themselves
            continue
        free, total = size(), size()
        memory(handle, ctypes.byref(free), ctypes.byref(total))
        backend = registry_name(registry(handle)).decode()
        shares_host = _KINDS[kind_index] in ("cpu", "accel") or total.value == 0
        devices.append(
            Device(
                name=name(handle).decode(),
                description=description(handle).decode("utf-8", "replace"),
                kind=_KINDS[kind_index],
                backend=_BACKEND_NAMES.get(backend, backend),
                free_bytes=available_memory() if shares_host else free.value,
                total_bytes=psutil.virtual_memory().total if shares_host else total.value,
                handle=handle,
            )
        )
    return devices


def select(device: str, devices: Sequence[Device]) -> list[Device]:
    """The devices to offload to, in the order in which layers are dealt out; none means the CPU alone.

    `device` is `auto`, `cpu`, a backend (`cuda`, `metal`, `vulkan`, `rocm`, …), a device's own name, or
    several of the last two with commas. `auto` takes the GPUs of the first backend that has one (a card that
    two backends know must not be used twice), integrated ones only where there is no other. Case is ignored.

    Raises DeviceError for what is not there, naming what is.
    """
    gpus = [candidate for candidate in devices if candidate.kind in ("gpu", "igpu")]
    wish = device.strip().lower()
    if wish == "cpu":
        return []
    if wish == "auto":
        candidates = [gpu for gpu in gpus if gpu.kind == "gpu"] or gpus
        return [gpu for gpu in candidates if gpu.backend == candidates[0].backend]
    chosen: list[Device] = []
    for part in map(str.strip, wish.split(",")):
        wanted = _BACKEND_ALIASES.get(part, part)
        found = [gpu for gpu in gpus if wanted in (gpu.name.lower(), gpu.backend.lower())]
        if not found:
            there = ", ".join(f"{gpu.name} ({gpu.description})" for gpu in gpus)
            raise DeviceError(
                f"There is no device {part!r} that the installed llama.cpp can use.",
                f"There is: {there}." if there else "It finds no GPU here: use --device auto or cpu.",
            )
        chosen += [gpu for gpu in found if gpu not in chosen]
    return chosen


@dataclass(frozen=True, slots=True)
class Machine:
    """What a search for GPUs asks of a machine."""

    system: str  # as platform.system() says it
    architecture: str  # as platform.machine() says it
    has_program: Callable[[str], bool]
    has_path: Callable[[str], bool]
    has_library: Callable[[str], bool]


def this_machine() -> Machine:
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        has_program=lambda name: shutil.which(name) is not None,
        has_path=lambda path: Path(path).exists(),
        has_library=lambda name: ctypes.util.find_library(name) is not None,
    )


@dataclass(frozen=True, slots=True)
class GpuBuild:
    """A way to build the binding: the backend, the switch that asks for it, and what must be installed."""

    backend: str
    switch: str
    needs: str


CUDA = GpuBuild("CUDA", "-DGGML_CUDA=on", "the CUDA toolkit")
METAL = GpuBuild("Metal", "-DGGML_METAL=on", "Xcode's command line tools")
ROCM = GpuBuild("ROCm", "-DGGML_HIP=on", "the ROCm toolkit")
VULKAN = GpuBuild("Vulkan", "-DGGML_VULKAN=on", "the Vulkan SDK")


def find_gpu(machine: Machine) -> GpuBuild | None:
    """The build that suits the GPU of a machine, judged by the traces its driver leaves; None without one."""
    if machine.system == "Darwin":
        return METAL if machine.architecture == "arm64" else None
    if machine.system == "Windows":
        if machine.has_library("nvcuda"):
            return CUDA
        return VULKAN if machine.has_library("vulkan-1") else None
    if machine.has_program("nvidia-smi") or machine.has_path("/proc/driver/nvidia"):
        return CUDA
    if machine.has_path("/dev/kfd") or machine.has_program("rocminfo"):
        return ROCM
    has_render_node = machine.has_path("/dev/dri/renderD128")
    if has_render_node and (machine.has_program("vulkaninfo") or machine.has_library("vulkan")):
        return VULKAN
    return None


def reinstall_command(build: GpuBuild, system: str, python: str, binding: str) -> str:
    """What to paste into a shell (PowerShell on Windows) to get version `binding` built with this backend."""
    install = f"-m pip install --force-reinstall --no-cache-dir llama-cpp-python=={binding}"
    if system == "Windows":
        quoted = python.replace("'", "''")
        return f"$env:CMAKE_ARGS='{build.switch}'; & '{quoted}' {install}"
    return f'CMAKE_ARGS="{build.switch}" {shlex.quote(python)} {install}'


def unused_gpu_hint(machine: Machine | None = None) -> str | None:
    """How to make use of a GPU that is here while the installed binding can't; None when all is well."""
    from llamaspec.native import api

    if api.lib.llama_supports_gpu_offload():
        return None
    machine = machine or this_machine()
    build = find_gpu(machine)
    if build is None:
        return None
    command = reinstall_command(build, machine.system, sys.executable, version("llama-cpp-python"))
    return (
        "There is a GPU here, but the installed llama-cpp-python can't use it. "
        f"To build it for {build.backend} (needs {build.needs}):\n{command}"
    )


_CGROUP = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")


def physical_cores() -> int:
    """Cores worth a thread each: no hyper-threads, no efficiency cores on Apple's chips, none that this
    process may not use, and no more than a container's quota.
    """
    quota, period = (*_cgroup_words("cpu.max"), "max", "max")[:2]
    if quota.isdecimal() and period.isdecimal():
        return max(1, min(_cores(), math.ceil(int(quota) / int(period))))
    return max(1, _cores())


def _cores() -> int:
    if sys.platform == "linux":
        allowed = os.sched_getaffinity(0)
        try:
            topology = [_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list" for cpu in allowed]
            return len({siblings.read_text() for siblings in topology})
        except OSError:
            return min(len(allowed), psutil.cpu_count(logical=False) or len(allowed))
    if sys.platform == "darwin":
        query = ["/usr/sbin/sysctl", "-n", "hw.perflevel0.physicalcpu"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        if answer.isdecimal():
            return int(answer)
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def available_memory() -> int:
    """Bytes of host memory that can be taken without swapping, within a container's limit if there is one."""
    available = int(psutil.virtual_memory().available)
    limit, used, usage = (
        _cgroup_words("memory.max"),
        _cgroup_words("memory.current"),
        _cgroup_words("memory.stat"),
    )
    if limit and used and limit[0].isdecimal():
        cached = dict(zip(usage[::2], usage[1::2], strict=False)).get("file", "0")  # files can be dropped
        available = min(available, int(limit[0]) - int(used[0]) + int(cached))
    return max(0, available)


def _cgroup_words(name: str) -> list[str]:
    """The words of a file of this container's control group (version 2); none where there is no such file."""
    try:
        return (_CGROUP / name).read_text().split()
    except OSError:
        return []
