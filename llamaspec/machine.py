"""What this machine is, as far as figures measured on it depend on that."""

import platform
from contextlib import suppress
from pathlib import Path

import psutil

from llamaspec.native.api import binding_version
from llamaspec.native.devices import list_devices, physical_cores
from llamaspec.provenance import Machine


def describe_machine() -> Machine:
    """Takes about a second where the processor's name has to be asked for."""
    devices = list_devices()
    return Machine(
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_processor(),
        cores=physical_cores(),
        memory_bytes=psutil.virtual_memory().total,
        gpus=tuple(device.description for device in devices if device.kind in ("gpu", "igpu")),
        backends=tuple(dict.fromkeys(device.backend for device in devices)),
        binding=binding_version(),
    )


def _processor() -> str:
    with suppress(OSError, StopIteration):  # where Linux tells; asking further takes a second
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    import cpuinfo

    return str(cpuinfo.get_cpu_info().get("brand_raw") or platform.processor() or "unknown")
