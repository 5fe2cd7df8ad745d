"""What the checks of memory, folders, network and the default pair say of made-up machines."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from doctoring import only, profile, source, use_folders, visit
from gguf_files import tiny_llama

from llamaspec.doctor import disk, folders, memory, network, pair
from llamaspec.doctor.check import State
from llamaspec.errors import ModelNotFoundError, NetworkError
from llamaspec.hub.cache import model_path
from llamaspec.hub.sources import LocalSource


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_folders(tmp_path, monkeypatch)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("available", "swapped", "state", "words"),
    [
        (8 << 30, 0, State.OK, "8.0 of 16.0 GiB are free."),
        (1 << 30, 0, State.ATTENTION, "the default pair takes about 1.5 GiB"),
        (3 << 29, 1 << 30, State.ATTENTION, "swap"),
    ],
)
def test_memory(
    available: int, swapped: int, state: State, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: available)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 << 30))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(used=swapped, total=2 << 30))
    finding = only(memory.run(visit(profile=profile(source(size=1 << 30)))))
    assert finding.state is state
    assert words in finding.sentence


@pytest.mark.parametrize(
    ("free", "state"), [(1 << 20, State.BROKEN), (1 << 30, State.ATTENTION), (1 << 40, State.OK)]
)
def test_disk_has_room_for_what_is_absent(free: int, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=free))
    assert only(disk.run(visit(profile=profile(source(size=1 << 30))))).state is state


def test_folders_that_are_not_there_yet_are_no_trouble() -> None:
    finding = only(folders.run(visit()))
    assert (finding.state, finding.sentence) == (State.OK, "Writable; 0 models of together 0.0 GB.")


def test_folders_tell_what_is_left_over_and_what_is_not_valid(caches: Path, tmp_path: Path) -> None:
    (caches / "models" / ("a" * 16) / "half.gguf.partial").mkdir(parents=True)
    (tmp_path / "config" / "profiles").mkdir(parents=True)
    (tmp_path / "config" / "profiles" / "mine.yaml").write_text("schema: 1\nnam: mine\n")
    left, invalid, _writable = folders.run(visit())
    assert left.state is invalid.state is State.ATTENTION
    assert left.remedy.splitlines()[-1] == "llamaspec rm half.gguf"
    assert "mine" in invalid.sentence


def test_folders_that_can_not_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    states = {finding.sentence: finding.state for finding in folders.run(visit())}
    assert states == {
        "The folder of the cache can't be written to: Permission denied.": State.BROKEN,
        "The folder of the hub's cache can't be written to: Permission denied.": State.BROKEN,
        "The folder of the settings can't be written to: Permission denied.": State.ATTENTION,
    }


SILENT = NetworkError("No answer.", "Wait.")


@pytest.mark.parametrize(
    ("answers", "here", "states"),
    [
        ({network.INDEX: None, network.HUB: None}, False, [State.OK, State.OK]),
        ({network.INDEX: None, network.HUB: SILENT}, False, [State.OK, State.ATTENTION]),
        ({network.INDEX: SILENT, network.HUB: SILENT}, True, [State.ATTENTION, State.ATTENTION]),
        ({network.INDEX: SILENT, network.HUB: SILENT}, False, [State.BROKEN, State.BROKEN]),
        ({network.HUB: ModelNotFoundError("No such.")}, True, [State.ATTENTION]),
    ],
)
def test_network(answers: network.Answers, here: bool, states: list[State]) -> None:
    findings = list(network.judge(answers, pair_is_here=here, proxies=("HTTPS_PROXY",)))
    assert [finding.state for finding in findings] == states
    assert all(finding.remedy for finding in findings if finding.state is not State.OK)
    assert findings[0].details == ("a proxy is set by HTTPS_PROXY",)


def test_questions_have_a_time_limit() -> None:
    stuck = threading.Event()

    def refuse() -> None:
        raise SILENT

    try:
        answers = network.ask_all({"a": lambda: None, "b": refuse, "c": lambda: stuck.wait() and None}, 0.05)
    finally:
        stuck.set()
    assert answers["a"] is None
    assert answers["b"] is SILENT
    assert isinstance(answers["c"], NetworkError)


def test_other_errors_of_a_question_come_through() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        network.ask_all({"a": fail})


def test_nothing_is_asked_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "ask_all", None)
    assert only(network.run(visit(offline=True))).sentence == "Not asked: --offline."
    local = profile(LocalSource(path="main.gguf"))
    assert only(network.run(visit(profile=local))).state is State.OK


@pytest.fixture
def cached(caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a file of a model, the default pair's, and puts it into the cache."""

    def put(content: bytes | None = None) -> Path:
        made = tiny_llama(tmp_path / "model.gguf")
        if content is not None:
            made.write_bytes(content)
        wanted = source(made)
        path = model_path(str(wanted.sha256), made.name)
        path.parent.mkdir(parents=True)
        made.replace(path)
        monkeypatch.setattr(pair, "find_profile", lambda _name: profile(wanted))
        return path

    return put


def test_pair_that_is_here(cached: Callable[..., Path]) -> None:
    path = cached()
    assert only(pair.run(visit())).details[0] == str(path)
    assert "bytes are the promised ones" in only(pair.run(visit(named=frozenset({"pair"})))).sentence


def test_pair_whose_bytes_changed(cached: Callable[..., Path]) -> None:
    path = cached()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert only(pair.run(visit())).state is State.OK  # its bytes are not read
    finding = only(pair.run(visit(verbose=True)))
    assert finding.state is State.BROKEN
    assert finding.remedy.splitlines()[1:] == ["llamaspec rm model.gguf", "llamaspec pull made-up"]


def test_pair_that_is_no_model(cached: Callable[..., Path]) -> None:
    cached(b"GGUF, or so it says")
    assert only(pair.run(visit())).state is State.BROKEN


def test_pair_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "find_profile", lambda _name: profile(source(size=2_000_000_000)))
    finding = only(pair.run(visit()))
    assert (finding.state, finding.sentence) == (
        State.ATTENTION,
        "made-up is not here yet: 2.0 GB to fetch.",
    )
    monkeypatch.setattr(pair, "find_profile", lambda _name: profile(LocalSource(path="/nowhere/x.gguf")))
    assert only(pair.run(visit())).state is State.BROKEN
