import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_fakes import COMMIT, CONTENT, FakeHub, as_the_hub, point_at, sha256

from llamaspec.errors import (
    DiskFullError,
    FileMissingError,
    HashMismatchError,
    ModelFetchError,
    ModelNotFoundError,
    NetworkError,
    UsageError,
)
from llamaspec.hub.fetch import fetch, resolve
from llamaspec.hub.inventory import find_models, list_models, remove
from llamaspec.hub.sources import HubMirror, ModelSource

SHARDS = ("s-Q8_0-00001-of-00002.gguf", "s-Q8_0-00002-of-00002.gguf")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub(
        {"owner/repo": {"a-Q4_0.gguf": CONTENT, **dict.fromkeys(SHARDS, b"shard" * 100), "README.md": b"#"}}
    )
    with as_the_hub(fake, tmp_path, monkeypatch):
        yield fake


def test_a_file_comes_into_the_hubs_own_cache_and_is_then_used_without_network(
    hub: FakeHub, tmp_path: Path
) -> None:
    model = resolve("owner/repo/a-Q4_0.gguf")
    assert model.path.read_bytes() == CONTENT
    assert model.path.is_relative_to(tmp_path / "hf" / "models--owner--repo" / "snapshots" / COMMIT)
    assert (model.size, model.origin) == (len(CONTENT), "Hugging Face (owner/repo)")
    if sys.platform != "win32":  # without symbolic links the hub's cache does not name the hash
        assert model.sha256 == sha256(CONTENT)
    hub.requests.clear()
    assert resolve("owner/repo/a-Q4_0.gguf") == model
    assert resolve(f"owner/repo/a-Q4_0.gguf@{COMMIT}").path == model.path
    assert resolve("owner/repo:q4_0").path == model.path
    assert hub.requests == []


def test_a_quantisation_is_looked_up(hub: FakeHub) -> None:
    assert resolve("owner/repo:Q4_0").path.name == "a-Q4_0.gguf"
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("owner/repo:Q2_K")
    assert "a-Q4_0.gguf" in caught.value.hint


def test_all_shards_come(hub: FakeHub) -> None:
    model = resolve("owner/repo:Q8_0")
    assert model.path.name == SHARDS[0]
    assert model.path.with_name(SHARDS[1]).is_file()
    assert model.size == 1000
    model.path.with_name(SHARDS[1]).unlink()
    with pytest.raises(FileMissingError, match=SHARDS[1]):
        resolve(str(model.path))
    assert resolve("owner/repo:Q8_0").path.with_name(SHARDS[1]).is_file()


def test_the_mirror_is_asked_when_the_file_of_record_is_missing(hub: FakeHub) -> None:
    hub.files["other/copy"] = {"b.gguf": CONTENT}
    mirror = HubMirror(repo="other/copy", file="b.gguf")
    source = ModelSource(repo="owner/gone", file="a.gguf", sha256=sha256(CONTENT), mirrors=(mirror,))
    assert fetch(source).origin == "Hugging Face (other/copy)"


def test_a_file_that_is_not_the_promised_one_is_not_even_downloaded(hub: FakeHub) -> None:
    hub.files["other/copy"] = {"b.gguf": b"good"}
    source = ModelSource(repo="owner/repo", file="a-Q4_0.gguf", sha256=sha256(b"good"))
    with pytest.raises(HashMismatchError, match="not the file that was promised"):
        fetch(source)
    assert [request.split()[0] for request in hub.requests] == ["HEAD"]
    mirrored = source.model_copy(update={"mirrors": (HubMirror(repo="other/copy", file="b.gguf"),)})
    assert fetch(mirrored).path.read_bytes() == b"good"


@pytest.mark.parametrize("etags", [True, False])
def test_damaged_bytes_are_deleted(hub: FakeHub, tmp_path: Path, etags: bool) -> None:
    hub.damage, hub.etags = True, etags
    source = ModelSource(repo="owner/repo", file="a-Q4_0.gguf", sha256=sha256(CONTENT))
    with pytest.raises(HashMismatchError, match="deleted"):
        fetch(source)
    assert not list((tmp_path / "hf").rglob("*.gguf"))
    assert not [path for path in (tmp_path / "hf").rglob("blobs/*") if path.is_file()]
    hub.damage = False
    assert fetch(source).path.read_bytes() == CONTENT


def test_a_full_disk_stops_before_the_download(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    mirror = HubMirror(repo="owner/repo", file="a-Q4_0.gguf")
    with pytest.raises(DiskFullError):
        fetch(ModelSource(repo="owner/repo", file="a-Q4_0.gguf", mirrors=(mirror,)))
    assert [request.split()[0] for request in hub.requests] == ["HEAD"]


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("owner/gone/x.gguf", ModelNotFoundError, "no public repository"),
        ("owner/gone:Q4_0", ModelNotFoundError, "no public repository"),
        ("owner/repo/x.gguf", ModelNotFoundError, "no such file"),
        ("owner/repo/a-Q4_0.gguf@v9", ModelNotFoundError, "no such revision"),
        ("owner/gated/x.gguf", ModelFetchError, "gated"),
    ],
)
def test_refusals_are_told_apart(
    hub: FakeHub, reference: str, kind: type[ModelFetchError], message: str
) -> None:
    hub.gated.add("owner/gated")
    with pytest.raises(ModelFetchError, match=message) as caught:
        resolve(reference)
    assert type(caught.value) is kind


def test_a_gated_model_says_what_to_do(hub: FakeHub) -> None:
    hub.gated.add("owner/gated")
    with pytest.raises(ModelFetchError) as caught:
        resolve("owner/gated/x.gguf")
    assert "HF_TOKEN" in caught.value.hint


def test_a_hub_with_troubles_is_asked_once(hub: FakeHub) -> None:
    hub.status = 503
    with pytest.raises(NetworkError, match="HTTP 503"):
        resolve("owner/repo/a-Q4_0.gguf")
    assert len(hub.requests) == 1


@pytest.mark.parametrize("reference", ["owner/repo/a-Q4_0.gguf", "owner/repo:Q4_0"])
def test_an_unreachable_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(NetworkError, match="does not answer"):
        resolve(reference)


def test_offline_mode_asks_nobody(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve("owner/repo/a-Q4_0.gguf")
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve("owner/repo/a-Q4_0.gguf").path.read_bytes() == CONTENT
    with pytest.raises(NetworkError, match="offline") as caught:
        resolve("owner/repo:Q8_0")
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert hub.requests == []


def test_every_source_and_its_reason_are_in_the_error(hub: FakeHub) -> None:
    mirrors = (HubMirror(repo="owner/repo", file="x.gguf"), HubMirror(repo="owner/gated", file="x.gguf"))
    hub.gated.add("owner/gated")
    with pytest.raises(ModelFetchError) as caught:
        fetch(ModelSource(repo="owner/gone", file="x.gguf", mirrors=mirrors))
    assert caught.value.message.splitlines() == [
        "x.gguf can't be had from any of its sources:",
        "  Hugging Face (owner/gone): Hugging Face has no public repository owner/gone.",
        "  Hugging Face (owner/repo): owner/repo has no such file.",
        "  Hugging Face (owner/gated): owner/gated is gated: its owner asks for an agreement first.",
    ]


def test_local_files(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF")
    assert resolve(str(path)).path == path
    assert resolve(str(path)).size == 4
    with pytest.raises(FileMissingError):
        resolve(str(tmp_path / "y.gguf"))


def test_models_of_the_hub_are_listed_and_removed(hub: FakeHub, tmp_path: Path) -> None:
    assert list_models() == []
    resolve("owner/repo/a-Q4_0.gguf")
    resolve("owner/repo:Q8_0")
    assert [(model.name, model.quantisation, model.complete) for model in list_models()] == [
        ("owner/repo/a-Q4_0.gguf", "Q4_0", True),
        (f"owner/repo/{SHARDS[0]}", "Q8_0", True),
    ]
    [model] = find_models(["a-Q4_0.gguf", "owner/repo/a-Q4_0.gguf"])
    remove(model)
    assert [model.file for model in list_models()] == [SHARDS[0]]
    assert CONTENT not in {path.read_bytes() for path in (tmp_path / "hf").rglob("*") if path.is_file()}
    remove(*list_models())
    assert not (tmp_path / "hf" / "models--owner--repo").exists()


def test_removal_is_by_name_only(hub: FakeHub) -> None:
    hub.files["other/copy"] = {"a-Q4_0.gguf": CONTENT}
    resolve("owner/repo/a-Q4_0.gguf")
    resolve("other/copy/a-Q4_0.gguf")
    with pytest.raises(UsageError) as caught:
        find_models(["a-Q4_0.gguf"])
    assert "other/copy/a-Q4_0.gguf, owner/repo/a-Q4_0.gguf" in caught.value.hint
    for name in ("a", "*", "..", "owner/repo", "/etc/passwd"):
        with pytest.raises(FileMissingError):
            find_models([name])
