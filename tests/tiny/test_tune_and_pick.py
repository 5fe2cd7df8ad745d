"""`tune` and `pick` with llama.cpp on tiny models: what they write loads again, and a stop can be resumed.

The time that they are given is never used up: what there is to try ends before.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf_files import tiny_llama
from typer.testing import CliRunner

from llamaspec.bench.tuning.candidates import Candidate
from llamaspec.bench.tuning.tuner import Tuner, Wish
from llamaspec.bench.workload import Prompt, Workload
from llamaspec.cli import app
from llamaspec.errors import UsageError
from llamaspec.hub.sources import LocalSource
from llamaspec.native.devices import physical_cores
from llamaspec.profiles import Profile, dump, load_profile, overlay
from llamaspec.profiles.making import make_profile
from llamaspec.session import load

WORK = Workload(
    prompts=[
        Prompt(name=f"{kind}-{number}", kind=kind, prompt=f"Tell me about {kind} number {number}.")
        for kind in ("tea", "rain")
        for number in (1, 2)
    ]
)
RUNTIME = {"threads": 1, "threads_batch": 1, "ctx_size": 256, "device": "cpu"}
KEPT = frozenset({"threads", "threads_batch", "flash_attn", "ubatch_size", "mode", "drafters", "draft_max"})
"""With these, another draft is all that is left to try."""


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLAMASPEC_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr("llamaspec.hub.inventory.scan_cache", lambda: None)
    monkeypatch.setattr("llamaspec.engine.calibrate.BUDGET_SECONDS", 0.05)
    main = tiny_llama(tmp_path / "main.gguf", layers=4)
    draft = tiny_llama(tmp_path / "draft.gguf", layers=1)
    return overlay(make_profile(str(main), str(draft)).profile, {"runtime": RUNTIME})


def wish(kept: frozenset[str] = KEPT, **more: Any) -> Wish:
    return Wish(WORK, "made-up", 600.0, 8, kept=kept, **more)


def stopping_after(turns: int) -> Callable[[], bool]:
    left = iter(range(turns))
    return lambda: next(left, None) is None


def test_what_it_writes_loads_again(pair: Profile, tmp_path: Path) -> None:
    with Tuner(pair, wish()) as tuner:
        found = tuner.search(lambda state: None)
        tuned = tuner.tuned(found, "tuned")
        assert tuner.unfinished is False and list((tmp_path / "cache" / "tuning").iterdir())
        tuner.forget()
    assert [one.change.name for one in found.tried] == ["draft as Q4_0"]
    told = tuned.provenance
    assert told is not None and told.draft is not None and told.main.file == "main.gguf"
    assert told.work.prompts == len(WORK.prompts)
    assert told.plain.value > 0.0 and told.speculative.value > 0.0
    assert isinstance(pair.main, LocalSource) and told.main.sha256 == pair.main.sha256
    assert told.machine.cores == physical_cores()
    path = tmp_path / "tuned.yaml"
    path.write_text(dump(tuned), encoding="utf-8")
    assert load_profile(path) == tuned
    with load(str(path)) as session:
        assert "".join(event.text for event in session.chat("Hello", settings={"sampling": {"n_predict": 4}}))
    assert not list((tmp_path / "cache" / "tuning").iterdir()), "nothing is left of the search"


def test_a_requantised_draft_is_kept_where_it_is_listed(pair: Profile, tmp_path: Path) -> None:
    with Tuner(pair, wish()) as tuner:
        found = tuner.search(lambda state: None)
        smaller = replace(found, chosen=Candidate("draft as Q4_0", draft="Q4_0"))
        tuned = tuner.tuned(smaller, "tuned")
    assert isinstance(tuned.draft, LocalSource) and tuned.draft.sha256 is not None
    kept = tmp_path / "cache" / "models" / tuned.draft.sha256[:16] / "draft.Q4_0.gguf"
    assert Path(tuned.draft.path) == kept
    assert tuned.provenance is not None and tuned.provenance.draft is not None
    assert tuned.provenance.draft.sha256 == tuned.draft.sha256
    with load(tuned) as session:
        assert session.loaded.draft is not None


def test_stopped_it_goes_on(pair: Profile) -> None:
    with Tuner(pair, wish(), should_stop=stopping_after(50)) as tuner, pytest.raises(KeyboardInterrupt):
        tuner.search(lambda state: None)
    with Tuner(pair, wish(resume=True)) as tuner:
        before = tuner.measured
        assert tuner.unfinished and before > 0
        assert tuner.search(lambda state: None).proof.plain is not None
        assert tuner.measured > before, "what was missing was measured"
    with Tuner(pair, wish()) as tuner:
        assert tuner.unfinished and tuner.measured == 0


def test_settings_that_were_given_stay(pair: Profile) -> None:
    with Tuner(pair, wish(KEPT - {"ubatch_size"})) as tuner:
        assert [stage.name for stage in tuner.stages()] == ["draft", "batch size"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, UsageError):
        raise result.exception
    return result.exit_code, result.stdout


def work_and_runtime(folder: Path) -> list[str]:
    path = folder / "work.yaml"
    path.write_text(json.dumps(WORK.model_dump(mode="json")), encoding="utf-8")
    return ["--workload", str(path), "-n", "8", "-t", "1", "-tb", "1", "-c", "256", "--device", "cpu", "-q"]


def test_the_command_writes_a_profile_and_says_what_it_tried(pair: Profile, tmp_path: Path) -> None:
    models = ["-m", str(tmp_path / "main.gguf"), "-md", str(tmp_path / "draft.gguf")]
    kept = ["-fa", "off", "-ub", "64"]
    path = tmp_path / "mine.yaml"
    code, out = run("tune", *models, *kept, *work_and_runtime(tmp_path), "-o", str(path), "--json")
    assert code == 0
    told = json.loads(out)
    written = load_profile(path)
    assert told["profile"] == str(path) and written.name == "mine" and written.provenance is not None
    assert {"speculation"} <= {one["stage"] for one in told["tried"]} <= {"draft", "speculation"}
    assert "findings" in told
    assert (written.runtime.flash_attn, written.runtime.ubatch_size) == ("off", 64)
    assert not list((tmp_path / "cache" / "tuning").iterdir()), "nothing is left of the search"


def test_pick_measures_what_lies_beside_the_main_model(pair: Profile, tmp_path: Path) -> None:
    main = str(tmp_path / "main.gguf")
    code, out = run("pick", main, "--minutes", "10", *work_and_runtime(tmp_path), "--json")
    assert code == 0
    told = json.loads(out)
    rows = {row["name"]: row for row in told["options"]}
    assert rows.keys() == {"no draft at all", "n-grams alone", "draft.gguf"}
    assert rows["draft.gguf"]["speedup"]["count"] == len(WORK.prompts)
    assert told["command"].startswith("llamaspec run -m ")


def test_pick_without_measuring(pair: Profile, tmp_path: Path) -> None:
    code, out = run("pick", str(tmp_path / "main.gguf"), "--no-measure")
    assert code == 0
    assert "draft.gguf" in out and f"-md {tmp_path / 'draft.gguf'}" in out


def test_tune_refuses_before_it_starts(pair: Profile, tmp_path: Path) -> None:
    there = tmp_path / "there.yaml"
    there.write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="There is a profile"):
        run("tune", "-m", str(tmp_path / "main.gguf"), "-o", str(there))
    assert there.read_text(encoding="utf-8") == "mine"
