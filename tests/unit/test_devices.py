"""Which device is meant by a word, and what is said of made-up machines."""

from pathlib import Path

import pytest

from llamaspec.errors import DeviceError
from llamaspec.native import api, devices
from llamaspec.native.devices import (
    CUDA,
    METAL,
    ROCM,
    VULKAN,
    Device,
    Kind,
    Machine,
    available_memory,
    find_gpu,
    list_devices,
    physical_cores,
    reinstall_command,
    select,
    unused_gpu_hint,
)


def device(name: str, backend: str, kind: Kind = "gpu") -> Device:
    return Device(name, f"{backend} card", kind, backend, 8 << 30, 8 << 30, handle=hash(name))


CPU = device("CPU", "CPU", "cpu")
BLAS = device("BLAS", "BLAS", "accel")
CUDA0, CUDA1 = device("CUDA0", "CUDA"), device("CUDA1", "CUDA")
VULKAN0, VULKAN1 = device("Vulkan0", "Vulkan"), device("Vulkan1", "Vulkan", "igpu")
ROCM0 = device("ROCm0", "ROCm")
METAL0 = device("MTL0", "Metal")


@pytest.mark.parametrize(
    ("wish", "there", "chosen"),
    [
        ("auto", [CPU], []),
        ("auto", [BLAS, CPU], []),
        ("auto", [CUDA0, CUDA1, CPU], [CUDA0, CUDA1]),
        ("auto", [CUDA0, VULKAN0, CPU], [CUDA0]),
        ("auto", [VULKAN1, VULKAN0, CPU], [VULKAN0]),
        ("auto", [VULKAN1, CPU], [VULKAN1]),
        ("cpu", [CUDA0, CPU], []),
        ("cuda", [VULKAN0, CUDA0, CUDA1, CPU], [CUDA0, CUDA1]),
        ("Vulkan", [CUDA0, VULKAN0, VULKAN1, CPU], [VULKAN0, VULKAN1]),
        ("metal", [METAL0, CPU], [METAL0]),
        ("hip", [ROCM0, CPU], [ROCM0]),
        ("rocm", [ROCM0, CPU], [ROCM0]),
        ("cuda1", [CUDA0, CUDA1, CPU], [CUDA1]),
        ("CUDA1, CUDA0", [CUDA0, CUDA1, CPU], [CUDA1, CUDA0]),
        ("CUDA1,cuda", [CUDA0, CUDA1, CPU], [CUDA1, CUDA0]),
    ],
)
def test_select(wish: str, there: list[Device], chosen: list[Device]) -> None:
    assert select(wish, there) == chosen


@pytest.mark.parametrize("wish", ["vulkan", "CUDA2", "gpu", "CUDA0,tpu", ",", "blas"])
def test_an_absent_device_is_an_error_that_says_what_there_is(wish: str) -> None:
    with pytest.raises(DeviceError) as caught:
        select(wish, [CUDA0, BLAS, CPU])
    assert "CUDA0 (CUDA card)" in caught.value.hint
    with pytest.raises(DeviceError) as caught:
        select(wish, [CPU])
    assert "no GPU" in caught.value.hint


def machine(
    system: str = "Linux",
    architecture: str = "x86_64",
    *,
    programs: str = "",
    paths: str = "",
    libraries: str = "",
) -> Machine:
    return Machine(
        system,
        architecture,
        has_program=lambda name: name in programs.split(),
        has_path=lambda path: path in paths.split(),
        has_library=lambda name: name in libraries.split(),
    )


@pytest.mark.parametrize(
    ("here", "build"),
    [
        (machine(), None),
        (machine(programs="nvidia-smi"), CUDA),
        (machine(paths="/proc/driver/nvidia /dev/dri/renderD128", libraries="vulkan"), CUDA),
        (machine(paths="/dev/kfd /dev/dri/renderD128", libraries="vulkan"), ROCM),
        (machine(programs="rocminfo"), ROCM),
        (machine(paths="/dev/dri/renderD128", libraries="vulkan"), VULKAN),
        (machine(paths="/dev/dri/renderD128", programs="vulkaninfo"), VULKAN),
        (machine(programs="vulkaninfo", libraries="vulkan"), None),
        (machine("Darwin", "arm64"), METAL),
        (machine("Darwin", "x86_64"), None),
        (machine("Windows", "AMD64", libraries="nvcuda vulkan-1"), CUDA),
        (machine("Windows", "AMD64", libraries="vulkan-1"), VULKAN),
        (machine("Windows", "AMD64"), None),
    ],
)
def test_the_gpu_of_a_machine_is_found_by_its_driver(here: Machine, build: object) -> None:
    assert find_gpu(here) == build


def test_the_command_can_be_pasted() -> None:
    assert reinstall_command(CUDA, "Linux", "/venv/bin/python", "0.3.36") == (
        'CMAKE_ARGS="-DGGML_CUDA=on" /venv/bin/python -m pip install --force-reinstall --no-cache-dir '
        "llama-cpp-python==0.3.36"
    )
    assert " '/my venv/bin/python' -m pip" in reinstall_command(METAL, "Darwin", "/my venv/bin/python", "1")
    assert reinstall_command(VULKAN, "Windows", r"C:\Users\O'Hara\python.exe", "1").startswith(
        r"$env:CMAKE_ARGS='-DGGML_VULKAN=on'; & 'C:\Users\O''Hara\python.exe' -m pip install "
    )


def test_the_hint_is_for_a_build_that_ignores_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu = machine(programs="nvidia-smi")
    monkeypatch.setattr(api.lib, "llama_supports_gpu_offload", lambda: False)
    assert unused_gpu_hint(machine()) is None
    hint = unused_gpu_hint(with_gpu)
    assert hint is not None and "-DGGML_CUDA=on" in hint and "llama-cpp-python==" in hint
    monkeypatch.setattr(api.lib, "llama_supports_gpu_offload", lambda: True)
    assert unused_gpu_hint(with_gpu) is None


def test_the_real_devices() -> None:
    found = list_devices()
    assert [device.backend for device in found if device.kind == "cpu"] == ["CPU"]
    assert len({device.name for device in found}) == len(found)
    assert all(device.handle and 0 <= device.free_bytes <= device.total_bytes for device in found)


def test_the_host() -> None:
    assert physical_cores() >= 1
    assert available_memory() > 0


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 64), ("250000 100000", 3), ("50000 100000", 1), ("", 64)]
)
def test_a_container_s_processor_quota_counts(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_CGROUP", tmp_path)
    monkeypatch.setattr(devices, "_cores", lambda: 64)
    (tmp_path / "cpu.max").write_text(quota)
    assert physical_cores() == cores


@pytest.mark.parametrize(("limit", "left"), [("max", None), ("5000", 5000 - 3000 + 1000), ("1000", 0)])
def test_a_container_s_memory_limit_counts(
    limit: str, left: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("3000")
    (tmp_path / "memory.stat").write_text("anon 2000\nfile 1000\n")
    if left is None:
        assert available_memory() > 5000
    else:
        assert available_memory() == left
