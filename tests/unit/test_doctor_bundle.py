"""What a bundle tells of a person: nothing."""

import getpass
import json
import os
import platform
import zipfile
from pathlib import Path
from typing import Any

import pytest

from llamaspec.doctor import private
from llamaspec.doctor.bundle import check_target, write_bundle
from llamaspec.doctor.check import Check, Visit, attention, examine
from llamaspec.doctor.private import Scrubber, shared_environment, without_credentials
from llamaspec.errors import UsageError

PROMPT = "Dear diary, today I robbed a bank"
TOKEN = "hf_" + "Qx7" * 8
KEY = "correcthorsebattery"
USER, HOST = "alicemuster", "alices-laptop"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a name, of a person with a name, who has set much."""
    home = tmp_path / "homes" / USER
    (home / "My Secret Plan" / "profiles").mkdir(parents=True)
    monkeypatch.setattr(getpass, "getuser", lambda: USER)
    monkeypatch.setattr(platform, "node", lambda: f"{HOST}.corp.example")
    monkeypatch.setattr(Path, "home", lambda: home)
    for name in [name for name in os.environ if name.startswith(("LLAMASPEC_", "HF_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "LLAMASPEC_CONFIG": str(home / "My Secret Plan"),
        "LLAMASPEC_CACHE": str(home / "cache"),
        "LLAMASPEC_SYSTEM": PROMPT,
        "LLAMASPEC_API_KEY": KEY,
        "LLAMASPEC_DRAFT_MAX": "16",
        "LLAMASPEC_MODEL": str(home / "private-model.gguf"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "1",
        "HTTPS_PROXY": f"http://{USER}:{KEY}@proxy.corp.example:3128",
    }.items():
        monkeypatch.setenv(name, value)
    (home / "My Secret Plan" / "profiles" / "qwen2.5-coder-1.5b.yaml").write_text(
        "schema: 1\nname: qwen2.5-coder-1.5b\nmain: {repo: owner/name, file: model.gguf}\n"
        f"chat: {{system: '{PROMPT}'}}\nsampling: {{stop: ['{PROMPT}']}}\n"
        f"speculation: {{corpus: '{home}/diary'}}\n",
        encoding="utf-8",
    )
    return home


def test_a_bundle_has_nothing_that_tells_who_and_where(home: Path, tmp_path: Path) -> None:
    def run(_visit: Visit) -> Any:
        yield attention(
            f"{USER} on {HOST} failed at {home}/My Secret Plan/x y.gguf.",
            f"Run '{home}/venv/bin/python' -m pip, at https://{USER}:{KEY}@index.example/simple.",
            f"header Bearer {TOKEN}",
            f"{home!s}".upper(),
            "/mnt/Other Disk/deep secret/model.gguf",
            r"C:\Users\bob\models\x.gguf",
            "ok: 12 tokens/s, and/or 3 / 4",
        )

    target = tmp_path / "report.zip"
    write_bundle([examine(Check("odd", "Odd", run), Visit())], Visit(), target)
    with zipfile.ZipFile(target) as bundle:
        parts = {name: bundle.read(name).decode() for name in bundle.namelist()}
    assert set(parts) == {"doctor.json", "versions.json", "settings.json"}
    text = "".join(parts.values())
    for secret in (PROMPT, "robbed", TOKEN, KEY, USER, HOST, "corp.example", "My Secret", "deep", "Plan"):
        assert secret.lower() not in text.lower()
    for path in (home, tmp_path):
        assert str(path).lower() not in text.lower()
    [finding] = json.loads(parts["doctor.json"])["checks"][0]["findings"]
    assert finding["sentence"] == "(user) on (host) failed at (path)."
    assert finding["remedy"] == "Run '(home)' -m pip, at https://(address)"
    assert finding["details"][1:] == ["(home)", "(path)", "(path)", "ok: 12 tokens/s, and/or 3 / 4"]

    settings = json.loads(parts["settings.json"])
    assert settings["environment"] == {
        "HF_HUB_OFFLINE": "1",
        "LLAMASPEC_API_KEY": "(set)",
        "LLAMASPEC_CACHE": "(set)",
        "LLAMASPEC_CONFIG": "(set)",
        "LLAMASPEC_DRAFT_MAX": "16",
        "LLAMASPEC_MODEL": "(set)",
        "LLAMASPEC_SYSTEM": "(set)",
    }
    assert "chat" not in settings["profile"]
    assert settings["profile"]["speculation"]["corpus"] == settings["profile"]["sampling"]["stop"] == "(set)"
    assert json.loads(parts["versions.json"])["packages"]["psutil"]


def test_targets_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    there = tmp_path / "there.zip"
    there.write_bytes(b"mine")
    with pytest.raises(UsageError, match="there already"):
        check_target(there)
    with pytest.raises(UsageError, match="no folder"):
        check_target(tmp_path / "absent" / "new.zip")
    check_target(tmp_path / "new.zip")


def test_a_bundle_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError, match="No space"):
        write_bundle([], Visit(), tmp_path / "report.zip")
    assert not list(tmp_path.iterdir())


def test_short_names_are_not_looked_for_inside_words() -> None:
    scrubber = Scrubber({"al": "(user)"}, {})
    assert scrubber.text("al is no part of all, al_1 is") == "(user) is no part of all, (user)_1 is"


def test_without_anything_known_only_paths_go() -> None:
    scrubber = Scrubber({}, {})
    assert scrubber.data({"/key": ["see /etc/passwd.", 3, None, "a/b"]}) == {
        "/key": ["see (path)", 3, None, "a/b"]
    }


@pytest.mark.parametrize(
    "text", ["https://huggingface.co/owner/repo", "a/b", "1/2", "--device cpu", "a // b"]
)
def test_what_is_no_path_stays(text: str) -> None:
    assert Scrubber({}, {}).text(text) == text


def test_credentials() -> None:
    assert without_credentials("http://u:p@host/x") == "http://host/x"
    assert without_credentials("http://u:p@ss@host/x@y") == "http://host/x@y"
    assert without_credentials("sk-abcdefghijk and ghp_abcdefghijk") == "(secret) and (secret)"


def test_values_that_could_be_anything_are_not_shown() -> None:
    environment = {
        "LLAMASPEC_SPEC": "auto",
        "LLAMASPEC_SYSTEM": "Hello",
        "HF_HUB_X_TOKEN": "1",
        "PATH": "/bin",
    }
    assert shared_environment(environment) == {
        "HF_HUB_X_TOKEN": "(set)",
        "LLAMASPEC_SPEC": "auto",
        "LLAMASPEC_SYSTEM": "(set)",
    }


def test_no_user_name_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(getpass, "getuser", fail)
    monkeypatch.setattr(private.Path, "home", lambda: Path("/somewhere/else"))
    assert Scrubber.of_this_machine().text("in /somewhere/else/x") == "in (home)"


def test_hosts_of_ones_own_are_left_out_and_public_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.corp.example:3128")
    scrub = Scrubber.of_this_machine().text
    assert scrub("Pool(host='proxy.corp.example', port=3128)") == "Pool(host='(host)', port=3128)"
    assert scrub("see https://mirror.corp.example/models/x, or not") == "see https://(address) or not"
    for public in ("Accept it on https://huggingface.co/owner/name.", "from https://python.org."):
        assert scrub(public) == public
    assert "(address)" in scrub("https://huggingface.co.corp.example/x")
