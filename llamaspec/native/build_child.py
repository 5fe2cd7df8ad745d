"""Prints what the installed build of llama.cpp is, as one line of JSON. For `llamaspec doctor`, not imported.

A library that can't be loaded here, or is made for another processor, ends this process alone.
"""

import json

from llamaspec.native import api
from llamaspec.native.devices import list_devices


def main() -> None:
    api.start()
    devices = list_devices()
    facts = {
        "version": api.binding_version(),
        "backends": list(dict.fromkeys(device.backend for device in devices)),
        "system_info": api.lib.llama_print_system_info().decode("utf-8", "replace"),
        "offloads": bool(api.lib.llama_supports_gpu_offload()),
        "gpus": [
            {
                "name": device.name,
                "description": device.description,
                "free_bytes": device.free_bytes,
                "total_bytes": device.total_bytes,
            }
            for device in devices
            if device.kind in ("gpu", "igpu")
        ],
    }
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
