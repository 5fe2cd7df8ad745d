"""`llamaspec profile new`, `add`, `share`, `diff` and `rm`, as typed, with a hub of our own."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf_files import VOCAB, tiny_llama
from hub_fakes import COMMIT, FakeHub, as_the_hub, sha256
from typer.testing import CliRunner

from llamaspec.cli.profile import app
from llamaspec.errors import (
    FileMissingError,
    ModelNotFoundError,
    PairMismatchError,
    ProfileError,
    ProfileNotFoundError,
    UsageError,
)
from llamaspec.profiles import Profile, dump, find_profile, parse_profile
from llamaspec.profiles.making import make_profile, slug
from llamaspec.profiles.sharing import share
from llamaspec.profiles.storing import write_text

RUNNER = CliRunner()
THEIRS = """\
schema: 1
name: theirs
description: A pair
license: MIT
main: {repo: owner/repo, file: main-Q8_0.gguf}
speculation: {mode: fixed, draft_max: 12}
chat: {system: Answer briefly.}
"""


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMASPEC_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config" / "profiles"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_llama(folder / "main.gguf")
    tiny_llama(folder / "draft.gguf", layers=1)
    tiny_llama(folder / "other.gguf", vocab=VOCAB.differing_at(40, "odd"))
    return folder


@pytest.fixture
def hub(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    files = {"main-Q8_0.gguf": (models / "main.gguf").read_bytes(), "README.md": b"#"}
    drafts = {"draft-Q4_0.gguf": (models / "draft.gguf").read_bytes()}
    fake = FakeHub({"owner/repo": files, "owner/drafts": drafts}, licences={"owner/repo": "mit"})
    with as_the_hub(fake, tmp_path, monkeypatch):
        yield fake


def run(*words: str, code: int = 0) -> str:
    result = RUNNER.invoke(app, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return str(result.stdout)


# new


def test_new_from_the_hub_pins_what_the_hub_has(hub: FakeHub, config: Path) -> None:
    path = run("new", "owner/repo:Q8_0", "owner/drafts/draft-Q4_0.gguf", "--name", "pair").strip()
    assert path == str(config / "pair.yaml")
    profile = find_profile("pair")
    content = hub.files["owner/repo"]["main-Q8_0.gguf"]
    assert profile.main.model_dump(exclude_defaults=True) == {
        "repo": "owner/repo",
        "file": "main-Q8_0.gguf",
        "revision": COMMIT,
        "sha256": sha256(content),
        "size": len(content),
    }
    assert profile.draft is not None and profile.draft.sha256 == sha256(
        hub.files["owner/drafts"]["draft-Q4_0.gguf"]
    )
    assert profile.license == "mit (main), apache-2.0 (draft)"
    assert profile.description == "main-Q8_0 drafted by draft-Q4_0"


def test_new_without_the_hub_goes_by_what_is_here(hub: FakeHub, config: Path) -> None:
    make_profile("owner/repo:Q8_0")
    hub.status = 503
    made = make_profile("owner/repo:Q8_0", name="cached")
    content = hub.files["owner/repo"]["main-Q8_0.gguf"]
    assert (made.profile.main.size, made.profile.license) == (len(content), "apache-2.0")
    if sys.platform != "win32":  # without symbolic links the hub's cache does not name the hash
        assert made.profile.main.sha256 == sha256(content)
    assert made.profile.main.model_dump()["revision"] == COMMIT
    assert "HTTP 503" in made.notes[0]


def test_new_without_fetching_says_that_the_pair_is_not_checked(hub: FakeHub, tmp_path: Path) -> None:
    result = RUNNER.invoke(
        app, ["new", "owner/repo:Q8_0", "owner/drafts:Q4_0", "--no-fetch", "-o", "unchecked.yaml"]
    )
    assert result.exit_code == 0
    assert result.stdout == "unchecked.yaml\n"
    assert "Whether the pair fits is not checked" in result.stderr
    assert not [request for request in hub.requests if "/resolve/" in request]
    assert find_profile("unchecked.yaml").name == "unchecked"


def test_new_from_files_names_them_and_their_hashes(models: Path, hub: FakeHub, tmp_path: Path) -> None:
    run("new", str(models / "main.gguf"), str(models / "draft.gguf"), "-o", "pair.yaml")
    profile = find_profile("pair.yaml")
    assert profile.main.model_dump() == {
        "path": str(models / "main.gguf"),
        "sha256": sha256((models / "main.gguf").read_bytes()),
        "size": (models / "main.gguf").stat().st_size,
    }
    assert hub.requests == []


def test_a_path_is_relative_to_the_profile(models: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    text = "schema: 1\nname: x\nmain: {path: ../m.gguf}\ndraft: {path: ~/d.gguf}\n"
    (tmp_path / "there" / "x.yaml").write_text(text)
    profile = find_profile(str(tmp_path / "there" / "x.yaml"))
    assert profile.main.model_dump()["path"] == str(tmp_path / "there" / ".." / "m.gguf")
    assert profile.draft is not None and profile.draft.model_dump()["path"] == "~/d.gguf"


def test_new_refuses_what_does_not_fit_or_is_not_there(models: Path, hub: FakeHub, config: Path) -> None:
    main, other = str(models / "main.gguf"), str(models / "other.gguf")
    with pytest.raises(PairMismatchError, match="Token 40"):
        run("new", main, other)
    with pytest.raises(FileMissingError):
        run("new", "nothing.gguf")
    with pytest.raises(ModelNotFoundError, match="has no file absent"):
        run("new", "owner/repo/absent.gguf")
    with pytest.raises(UsageError, match="can't be a profile's name"):
        run("new", main, "--name", "../x")
    assert not config.exists()


def test_nothing_is_written_over_unasked(models: Path, hub: FakeHub, config: Path) -> None:
    run("new", str(models / "main.gguf"), "--name", "pair")
    hub.requests.clear()
    with pytest.raises(UsageError, match="exists already"):
        run("new", "owner/repo:Q8_0", "--name", "pair")
    assert hub.requests == []
    run("new", "owner/repo:Q8_0", "--name", "pair", "--force")
    assert find_profile("pair").main.model_dump()["repo"] == "owner/repo"
    assert [path.name for path in config.iterdir()] == ["pair.yaml"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Qwen2.5-Coder Q4_K_M", "qwen2.5-coder-q4_k_m"),
        ("...", "unnamed"),
        ("a" * 99, "a" * 64),
        ("Ünï", "n"),
    ],
)
def test_names_are_made_of_file_names(text: str, expected: str) -> None:
    assert slug(text) == expected
    assert Profile.model_validate({"schema": 1, "name": slug(text), "main": {"path": "x"}}).name == expected


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "x.yaml").write_text("before")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_text("after", tmp_path / "x.yaml", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]
    assert (tmp_path / "x.yaml").read_text() == "before"


# add


def test_add_shows_what_it_comes_to_and_keeps_it_with_its_origin(hub: FakeHub, config: Path) -> None:
    Path("theirs.yaml").write_text(THEIRS)
    result = RUNNER.invoke(app, ["add", "theirs.yaml", "--yes"])
    assert result.exit_code == 0
    size = len(hub.files["owner/repo"]["main-Q8_0.gguf"])
    for told in (
        "theirs: A pair",
        "from      theirs.yaml",
        "licence   MIT (so it says)",
        f"{size / 1024:.3g} KiB, to be fetched when it is first used",
        "Hugging Face: owner/repo/main-Q8_0.gguf at main",
        "licence: mit; no SHA-256 is given",
        "speculation.draft_max: 12",
        "chat.system: Answer briefly.",
        "none of them acts on this machine",
    ):
        assert told in result.stderr
    assert result.stdout == f"{config / 'theirs.yaml'}\n"
    kept = find_profile("theirs")
    assert kept.origin == "theirs.yaml"
    assert kept.model_copy(update={"origin": None}) == parse_profile(THEIRS.encode(), "x")
    assert not [request for request in hub.requests if request.startswith("GET /owner")]
    assert "(added from theirs.yaml)" in run("list")


def test_add_from_the_hub(hub: FakeHub) -> None:
    hub.files["owner/repo"]["pair.yaml"] = THEIRS.encode()
    run("add", "owner/repo/pair.yaml", "--name", "another", "--yes")
    assert find_profile("another").origin == "owner/repo/pair.yaml@main"


def test_add_asks_and_is_refused_where_nobody_can_be_asked(
    hub: FakeHub, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("theirs.yaml").write_text(THEIRS)
    with pytest.raises(UsageError, match="nobody to ask"):
        run("add", "theirs.yaml")
    from llamaspec.cli.profile import parameters

    monkeypatch.setattr(parameters, "is_terminal", lambda: True)
    assert RUNNER.invoke(app, ["add", "theirs.yaml"], input="n\n").exit_code == 1
    assert not config.exists()
    assert RUNNER.invoke(app, ["add", "theirs.yaml"], input="y\n").exit_code == 0
    assert (config / "theirs.yaml").is_file()


def test_add_never_hides_or_replaces_unasked(hub: FakeHub, config: Path) -> None:
    Path("theirs.yaml").write_text(THEIRS.replace("theirs", "qwen3-8b"))
    result = RUNNER.invoke(app, ["add", "theirs.yaml", "--yes"])
    assert "It would hide the shipped profile qwen3-8b." in result.stderr
    with pytest.raises(UsageError, match="You have a profile qwen3-8b already"):
        run("add", "theirs.yaml", "--yes")
    result = RUNNER.invoke(app, ["add", "theirs.yaml", "--yes", "--force"])
    assert "It would take the place of" in result.stderr
    with pytest.raises(UsageError, match="is here already"):
        run("add", "llama-3.1-8b", "--yes")
    with pytest.raises(UsageError, match="can't be a profile's name"):
        run("add", "theirs.yaml", "--yes", "--name", "Über")


def test_add_tells_of_models_that_are_not_to_be_had(hub: FakeHub) -> None:
    Path("theirs.yaml").write_text(THEIRS.replace("main-Q8_0", "gone"))
    assert "owner/repo has no such file now." in RUNNER.invoke(app, ["add", "theirs.yaml", "--yes"]).stderr
    hub.status = 503
    result = RUNNER.invoke(app, ["add", "theirs.yaml", "--yes", "--name", "again"])
    assert "of unknown size" in result.stderr and "HTTP 503" in result.stderr


def test_add_counts_all_files_of_a_split_model(hub: FakeHub) -> None:
    shards = [f"s-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    hub.files["owner/repo"] |= dict.fromkeys(shards, b"x" * 2048)
    Path("theirs.yaml").write_text(THEIRS.replace("main-Q8_0.gguf", shards[0]))
    assert "main      4 KiB" in RUNNER.invoke(app, ["add", "theirs.yaml", "--yes"]).stderr


def test_letters_that_could_be_others_are_told(hub: FakeHub) -> None:
    Path("theirs.yaml").write_text(THEIRS.replace("main-", "m\u0430in-"), encoding="utf-8")
    assert "(owner/repo/m\\u0430in-Q8_0.gguf)" in RUNNER.invoke(app, ["add", "theirs.yaml", "--yes"]).stderr


# share


def test_share_reads_back_as_it_was(hub: FakeHub, config: Path) -> None:
    Path("theirs.yaml").write_text(THEIRS)
    run("add", "theirs.yaml", "--yes")
    result = RUNNER.invoke(app, ["share", "theirs"])
    assert parse_profile(result.stdout.encode(), "x", foreign=True) == parse_profile(THEIRS.encode(), "x")
    assert "origin is left out" in result.stderr
    assert "chat.system, your system prompt, is in it" in result.stderr
    run("share", "theirs", "-o", "out.yaml")
    assert Path("out.yaml").read_text(encoding="utf-8") == result.stdout
    with pytest.raises(UsageError, match="exists already"):
        run("share", "theirs", "-o", "out.yaml")


@pytest.mark.parametrize("entry", ["qwen2.5-coder-1.5b", "llama-3.1-8b", "smollm2-135m"])
def test_what_is_shipped_is_shared_whole(entry: str) -> None:
    shared = share(find_profile(entry))
    assert (shared.profile, shared.remarks) == (find_profile(entry), ())
    assert shared.text == dump(shared.profile)


def test_share_names_the_published_file_in_place_of_a_local_one(
    models: Path, hub: FakeHub, config: Path
) -> None:
    run("new", str(models / "main.gguf"), "--name", "local")
    with pytest.raises(ProfileError, match="no place is known where others get it"):
        run("share", "local")
    run("new", "owner/repo:Q8_0", "--name", "published")
    result = RUNNER.invoke(app, ["share", "local"])
    shared = parse_profile(result.stdout.encode(), "x", foreign=True)
    assert shared.main == find_profile("published").main
    assert "main.path is replaced: the same file is owner/repo/main-Q8_0.gguf." in result.stderr
    assert str(models) not in result.stdout


def test_share_leaves_out_a_corpus_and_says_so() -> None:
    text = THEIRS + "runtime: {threads: 4}\n"
    text = text.replace("draft_max: 12", "draft_max: 12, drafters: [ngram, corpus], corpus: ~/src")
    profile = parse_profile(text.encode(), "x")
    shared = share(profile)
    assert "speculation.corpus is left out" in shared.remarks[0]
    speculation = profile.speculation.model_copy(update={"corpus": None, "drafters": ("ngram",)})
    assert shared.profile == profile.model_copy(update={"speculation": speculation})


def test_share_refuses_what_others_would(hub: FakeHub) -> None:
    profile = parse_profile((THEIRS + 'sampling: {stop: ["\\u202E"]}\n').encode(), "x")
    with pytest.raises(ProfileError, match="hides or reorders text"):
        share(profile)


# diff and rm


def test_diff_tells_by_key_and_by_exit_code() -> None:
    Path("a.yaml").write_text(THEIRS)
    Path("b.yaml").write_text(
        THEIRS.replace("12", "16").replace("license: MIT\n", "") + "draft: {path: d.gguf}\n"
    )
    assert run("diff", "a.yaml", "a.yaml") == ""
    lines = run("diff", "a.yaml", "b.yaml", code=1).splitlines()
    assert lines[:4] == [
        "--- a.yaml",
        "+++ b.yaml",
        "license: MIT → ",
        f"draft.path: – → {Path.cwd() / 'd.gguf'}",
    ]
    assert lines[4:] == ["speculation.draft_max: 12 → 16"]
    told = json.loads(run("diff", "a.yaml", "b.yaml", "--json", code=1))
    assert told["differences"][-1] == {"key": "speculation.draft_max", "first": 12, "second": 16}
    assert told["provenance"] == []
    with pytest.raises(ProfileNotFoundError):
        run("diff", "a.yaml", "nothing")


def test_diff_counts_what_is_written_out_as_the_default_that_it_is() -> None:
    Path("a.yaml").write_text(THEIRS)
    Path("b.yaml").write_text(dump(find_profile("a.yaml"), full=True), encoding="utf-8")
    assert run("diff", "a.yaml", "b.yaml") == ""


def test_rm_deletes_the_users_alone(hub: FakeHub, config: Path) -> None:
    Path("theirs.yaml").write_text(THEIRS)
    run("add", "theirs.yaml", "--yes")
    with pytest.raises(UsageError, match="nobody to ask"):
        run("rm", "theirs")
    run("rm", "theirs", "--yes")
    assert not (config / "theirs.yaml").exists()
    with pytest.raises(ProfileNotFoundError, match="is a shipped profile"):
        run("rm", "qwen3-8b", "--yes")
    with pytest.raises(ProfileNotFoundError, match=r"no profile named '\.\./theirs'"):
        run("rm", "../theirs", "--yes")
    assert Path("theirs.yaml").exists()


@pytest.mark.parametrize(
    "command", ["list", "show", "validate", "schema", "new", "add", "share", "diff", "rm"]
)
def test_every_command_shows_how_it_is_used(command: str) -> None:
    assert f"llamaspec profile {command}" in run(command, "--help")
