"""What the checks of the binding, of GPUs and of the speed say of made-up machines."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from doctoring import CPU_BUILD, only, profile, source, use_folders, visit
from gguf_files import tiny_llama

from llamaspec.doctor import binding, child, gpu, speed
from llamaspec.doctor.binding import Processor, missed_features
from llamaspec.doctor.build import Build, BuildTrouble, Gpu, parse_build
from llamaspec.doctor.check import Finding, State
from llamaspec.doctor.gpu import Driver
from llamaspec.hub.sources import LocalSource
from llamaspec.native.devices import CUDA, ROCM, Machine

CUDA_BUILD = Build("0.3.36", ("CUDA", "CPU"), frozenset({"AVX2"}), offloads=True, gpus=())
AVX2_ONLY = Processor("Some CPU", frozenset({"avx", "avx2"}))


def machine(*there: str) -> Machine:
    return Machine("Linux", "x86_64", there.__contains__, there.__contains__, there.__contains__)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_folders(tmp_path, monkeypatch)


def test_features_are_read_of_the_cpu_alone() -> None:
    answer = {
        "version": "1",
        "backends": ["CUDA", "CPU"],
        "system_info": "CUDA : ARCHS = 890 | CPU : SSE3 = 1 | AVX2 = 0 | AVX = 1 | Metal : BF16 = 1 | ",
        "offloads": True,
        "gpus": [{"name": "CUDA0", "description": "card", "free_bytes": 1, "total_bytes": 2}],
    }
    parsed = parse_build(answer)
    assert parsed.features == {"SSE3", "AVX"}
    assert parsed.gpus == (Gpu("CUDA0", "card", 1, 2),)


def test_missed_features_need_all_their_flags() -> None:
    assert missed_features({"avx", "avx2", "fma", "avx512f"}, {"AVX"}) == ["AVX2", "FMA"]
    parts = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
    assert missed_features(parts, ()) == ["AVX512"]
    assert missed_features({"pni"}, {"SSE3"}) == missed_features((), ()) == []


def test_binding_that_is_all_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "read_processor", lambda: AVX2_ONLY)
    assert only(binding.run(visit(build=CPU_BUILD))).state is State.OK


def test_binding_that_misses_features_keeps_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "read_processor", lambda: AVX2_ONLY)
    finding = only(binding.run(visit(build=CUDA_BUILD)))
    assert finding.state is State.ATTENTION
    assert "AVX is not used" in finding.sentence
    command = finding.remedy.splitlines()[-1]
    assert "-DGGML_NATIVE=on -DGGML_CUDA=on" in command
    assert "llama-cpp-python==0.3.36" in command


def test_binding_of_another_version() -> None:
    other = Build("0.2.1", ("CPU",), frozenset(), offloads=False, gpus=())
    finding = only(binding.run(visit(build=other)))
    assert finding.state is State.BROKEN
    assert "0.2.1" in finding.sentence


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (BuildTrouble("No module named 'llama_cpp'", installed=False), "is not installed"),
        (BuildTrouble("OSError: libgomp.so.1", ("log",)), "can't be used: OSError: libgomp.so.1."),
        (BuildTrouble("an illegal instruction", for_another_processor=True), "for another processor"),
    ],
)
def test_binding_that_does_not_work(trouble: BuildTrouble, words: str) -> None:
    finding = only(binding.run(visit(build=trouble)))
    assert finding.state is State.BROKEN
    assert words in finding.sentence
    assert "-m pip install" in finding.remedy.splitlines()[-1]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_up(*there: str, driver: Driver | None = None) -> None:
        monkeypatch.setattr(gpu, "this_machine", lambda: machine(*there))
        monkeypatch.setattr(gpu, "read_nvidia_driver", lambda: driver or Driver("550.1", "12.4", ("A card",)))

    return set_up


def test_no_gpu(here: Callable[..., None]) -> None:
    here()
    assert only(gpu.run(visit(build=CPU_BUILD))).state is State.OK


def test_gpu_in_use(here: Callable[..., None]) -> None:
    here("nvidia-smi")
    card = Gpu("CUDA0", "A card", 8 << 30, 16 << 30)
    finding = only(gpu.run(visit(build=Build("0.3.36", ("CUDA",), frozenset(), offloads=True, gpus=(card,)))))
    assert (finding.state, finding.sentence) == (State.OK, "Usable: A card (CUDA0).")
    assert finding.details == ("CUDA0: 8.0 of 16.0 GiB are free",)


def test_gpu_that_the_build_is_not_for(here: Callable[..., None]) -> None:
    here("nvidia-smi")
    finding = only(gpu.run(visit(build=CPU_BUILD)))
    assert finding.state is State.ATTENTION
    assert "-DGGML_CUDA=on" in finding.remedy.splitlines()[-1]
    assert "A card" in finding.details[0]


def test_gpu_while_the_binding_is_broken(here: Callable[..., None]) -> None:
    here("nvidia-smi")
    finding = only(gpu.run(visit(build=BuildTrouble("gone"))))
    assert finding.state is State.ATTENTION
    assert finding.details == ("There are traces of a GPU for CUDA.",)


def why(suited: Any, driver: Driver | None, environment: dict[str, str], kfd: bool = True) -> Finding:
    return gpu.unusable(suited, machine(), driver, environment, kfd_allowed=kfd)


@pytest.mark.parametrize(
    ("finding", "remedy"),
    [
        (why(CUDA, Driver("1", "12.4", ("x",)), {"CUDA_VISIBLE_DEVICES": ""}), "Unset CUDA_VISIBLE_DEVICES"),
        (why(CUDA, Driver(error="Driver/library version mismatch"), {}), "restart"),
        (why(CUDA, Driver(error="Driver Not Loaded"), {}), "modprobe"),
        (why(CUDA, Driver(error="Insufficient Permissions"), {}), "administrator"),
        (why(CUDA, Driver(error="NVML Shared Library Not Found"), {}), "Install NVIDIA's driver"),
        (why(CUDA, Driver("1", "12.4"), {}), "--gpus all"),
        (why(CUDA, Driver("1", "12.4", ("x",)), {}), "up to 12.4"),
        (why(ROCM, None, {}, kfd=False), "usermod"),
        (why(ROCM, None, {}), "-DGGML_HIP=on"),
    ],
)
def test_why_a_gpu_can_not_be_used(finding: Finding, remedy: str) -> None:
    assert finding.state is State.ATTENTION
    assert remedy in finding.remedy


def test_the_driver_is_asked_without_harm() -> None:
    driver = gpu.read_nvidia_driver()
    assert driver.error or driver.version


def measured(speed: float, *, others: float = 0.0, token_bytes: int = 1_000_000_000) -> dict[str, Any]:
    return {
        "speed": speed,
        "token_bytes": token_bytes,
        "bandwidth": 50e9,
        "threads": 4,
        "gpu_layers": 0,
        "others": others,
    }


@pytest.mark.parametrize(
    ("answer", "flags", "remedy"),
    [
        (measured(20), set(), ""),
        (measured(5, others=0.5), set(), "close them"),
        (measured(5), {"avx512_bf16"}, "does not use AVX512_BF16"),
        (measured(5), set(), "llamaspec tune"),
        (measured(60, token_bytes=100_000_000), set(), ""),  # small: 12 % is no worry
    ],
)
def test_speed(answer: dict[str, Any], flags: set[str], remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "read_processor", lambda: Processor("x", frozenset(flags)))
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    finding = speed.judge("model.gguf", answer, CPU_BUILD)
    assert finding.state is (State.ATTENTION if remedy else State.OK)
    assert remedy in finding.remedy


def test_speed_on_a_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "read_processor", lambda: AVX2_ONLY)
    unplugged = SimpleNamespace(power_plugged=False)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: unplugged, raising=False)
    assert "battery" in speed.judge("model.gguf", measured(5), CPU_BUILD).remedy


def test_speed_is_not_measured_without_a_model_or_a_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no model" in only(speed.run(visit(build=CPU_BUILD, profile=profile(source())))).sentence
    assert "binding" in only(speed.run(visit(build=BuildTrouble("gone")))).sentence


def test_speed_of_a_model_that_can_not_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = tiny_llama(tmp_path / "local.gguf")
    here = visit(build=CPU_BUILD, profile=profile(LocalSource(path=str(local))))
    monkeypatch.setattr(speed, "ask", lambda *_, **__: child.Died("SIGSEGV", ("its last line",)))
    finding = only(speed.run(here))
    assert (finding.state, finding.details) == (State.BROKEN, ("its last line",))
    monkeypatch.setattr(speed, "ask", lambda *_, **__: {"error": "Too large.", "hint": ""})
    assert only(speed.run(here)).sentence == "Too large."
