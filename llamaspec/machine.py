"""What this machine is, as far as figures measured on it depend on that."""

import platform

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
    import cpuinfo

    return str(cpuinfo.get_cpu_info().get("brand_raw") or platform.processor() or "unknown")
