"""What a benchmark looks at beside the models: other programs, memory, bandwidth, energy."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from llamaspec.bench.bandwidth import read_bandwidth
from llamaspec.bench.energy import FINE, open_meter
from llamaspec.bench.memory import Paging, scarcity, spilled, taken
from llamaspec.bench.noise import OtherLoad, noise_findings, relative_spread


def test_load_of_others_is_what_is_neither_idle_nor_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Process:
        user: float = 0.0
        system: float = 0.0

        def cpu_times(self) -> "Process":
            return self

    class Times(NamedTuple):
        user: float
        system: float
        idle: float

    times, ours = [Times(10.0, 1.0, 5.0), Times(17.0, 2.0, 7.0), Times(17.0, 2.0, 7.0)], Process()
    monkeypatch.setattr("psutil.Process", lambda: ours)
    monkeypatch.setattr("psutil.cpu_times", lambda: times.pop(0))
    load = OtherLoad()
    ours.user = 6.0
    assert load.share() == pytest.approx(0.2)  # 2 of 10 seconds
    assert load.share() == 0.0


@pytest.mark.parametrize(
    ("shares", "spread", "problems"),
    [
        ([0.0] * 10, None, []),
        ([0.5] * 2 + [0.0] * 8, 0.05, []),
        ([0.5] * 3 + [0.0] * 7, 0.05, ["Other programs took 50% of the machine in 3 of 10 trials"]),
        ([0.01] * 10, 0.2, ["Repeats of plain decoding differ by 20%"]),
    ],
)
def test_a_noisy_machine_is_called_noisy(
    shares: Sequence[float], spread: float | None, problems: list[str]
) -> None:
    findings = noise_findings(shares, spread)
    assert [finding.problem.partition(":")[0] for finding in findings] == problems
    assert all(finding.remedy for finding in findings)


def test_spread_is_that_of_repeats_alone() -> None:
    assert relative_spread({"a": [10.0], "b": [20.0]}) is None
    assert relative_spread({"a": [10.0, 10.0], "b": [20.0, 20.0], "c": [5.0]}) == 0.0
    assert relative_spread({"a": [9.0, 10.0, 11.0], "b": [180.0, 200.0, 220.0]}) == pytest.approx(0.1)


def test_paging_counts_from_a_moment_on() -> None:
    before = Paging(swapped=1 << 30, faults=50)
    assert before.findings(before) == []
    [swapped] = Paging(3 << 30, 50).findings(before)
    assert "swapped 2.00 GiB" in swapped.problem
    [read] = Paging(1 << 30, 2050).findings(before)
    assert "read from the disk again" in read.problem
    now = Paging.now()
    assert now.swapped >= 0 and now.faults >= 0


def test_memory_that_is_nearly_used_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Virtual(NamedTuple):
        total: int

    monkeypatch.setattr("psutil.virtual_memory", lambda: Virtual(16 << 30))
    monkeypatch.setattr("llamaspec.bench.memory.available_memory", lambda: 8 << 30)
    assert scarcity() == []
    monkeypatch.setattr("llamaspec.bench.memory.available_memory", lambda: 1 << 28)
    assert "0.2 of 16.0 GiB" in scarcity()[0].problem


def test_layers_that_spilled_are_told() -> None:
    assert spilled("main", 29, 29) == []
    assert spilled("main", 20, 29)[0].problem == "Only 20 of 29 layers of the main model fit on the GPU."


def test_this_process_takes_memory() -> None:
    assert taken() > 1 << 20


def test_bandwidth_is_measured() -> None:
    assert 1e8 < read_bandwidth(1, most_bytes=1 << 24) < 1e13


def zone(folder: Path, name: str, label: str, energy: int, span: int = 1000) -> Path:
    place = folder / name
    place.mkdir()
    (place / "name").write_text(f"{label}\n")
    (place / "max_energy_range_uj").write_text(f"{span}\n")
    (place / "energy_uj").write_text(f"{energy}\n")
    return place / "energy_uj"


def test_rapl_counts_packages_and_memory_and_begins_anew(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 900)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 5)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 10)
    zone(tmp_path, "intel-rapl:1", "psys", 7)
    meter = open_meter(gpu=False, powercap=tmp_path)
    assert meter is not None
    with meter:
        assert meter.step <= FINE
        assert meter() == 0.0
        package.write_text("99")  # 200 µJ later, at a span of 1001
        core.write_text("500")
        memory.write_text("60")
        assert meter() == pytest.approx(250e-6)
        assert meter() == pytest.approx(250e-6)


def test_what_is_not_told_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_meter(gpu=False, powercap=tmp_path / "none") is None
    zone(tmp_path, "intel-rapl:0", "package-0", 900).unlink()
    assert open_meter(gpu=False, powercap=tmp_path) is None
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(there=False))
    assert open_meter(gpu=True, powercap=tmp_path) is None


def test_gpus_count_where_they_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = fake_nvml(there=True)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = open_meter(gpu=True, powercap=tmp_path)
    assert meter is not None
    assert meter() == pytest.approx(3.0)
    assert meter.step > FINE
    meter.close()
    assert nvml.ended == 1


def fake_nvml(*, there: bool) -> ModuleType:
    nvml = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def init() -> None:
        if not there:
            raise NVMLError

    def shutdown() -> None:
        nvml.ended += 1

    nvml.ended = 0
    nvml.NVMLError = NVMLError
    nvml.nvmlInit = init
    nvml.nvmlShutdown = shutdown
    nvml.nvmlDeviceGetCount = lambda: 2
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 1000 * (handle + 1)
    return nvml
