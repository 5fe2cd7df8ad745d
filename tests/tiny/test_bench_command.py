"""`llamaspec bench` on generated files, with the real llama.cpp: what it reports and writes."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from gguf_files import tiny_llama
from typer.testing import CliRunner, Result

from llamaspec.bench.measure import Task, measure
from llamaspec.bench.naming import named
from llamaspec.bench.paired import Overrides
from llamaspec.bench.report import Finding, Report, TrialRecord, read_report
from llamaspec.bench.roofline import bytes_per_token
from llamaspec.bench.workload import Prompt, Workload, choose_work
from llamaspec.cli import app
from llamaspec.errors import ContextError, LlamaspecError, UsageError
from llamaspec.gguf.facts import describe
from llamaspec.gguf.shards import read_model
from llamaspec.hub.fetch import resolve
from llamaspec.session import Session, load

RUNNER = CliRunner()
WORKLOAD = """\
prompts:
  - {name: count, kind: numbers, prompt: one two three one two three}
  - {name: again, kind: numbers, prompt: two three one two three one}
  - {name: tale, kind: story, prompt: Tell me one}
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return str(tiny_llama(folder / "main.gguf")), str(tiny_llama(folder / "draft.gguf", noise=0.05))


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("llamaspec.bench.measure.read_bandwidth", lambda threads: 1e10)
    monkeypatch.setattr("llamaspec.engine.calibrate.BUDGET_SECONDS", 0.05)


def bench(pair: tuple[str, ...], folder: Path, *arguments: str) -> Result:
    work = folder / "work.yaml"
    work.write_text(WORKLOAD, encoding="utf-8")
    models = [word for flag, model in zip(("-m", "-md"), pair, strict=False) for word in (flag, model)]
    common = ["--workload", str(work), "-t", "1", "--device", "cpu", "-c", "256", "-n", "12"]
    return RUNNER.invoke(app, ["bench", *models, *common, *arguments])


def reported(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_report_of_a_pair(pair: tuple[str, str], tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("r.json", "r.csv", "r.html")]
    flags = [word for name in names for word in (f"--{name.suffix[1:]}", str(name))]
    result = bench(pair, tmp_path, *flags, "--settings", "fixed:4:0,auto", "--repeat", "2")
    assert result.exit_code == 0, result.output
    assert "fixed:4:0" in result.stdout and "Stopped after" not in result.stdout
    assert "about" in result.stderr
    report = read_report(names[0])
    assert [outcome.setting for outcome in report.outcomes] == ["plain", "fixed:4:0", "auto"]
    assert len(report.trials) == 6 and report.work.name == "work"
    assert (report.main.file, report.draft.file) == ("main.gguf", "draft.gguf")
    assert report.noise is not None and report.roofline is not None and report.prices is not None
    fixed = report.outcome("fixed:4:0")
    assert fixed.same_text == 3 and fixed.differences == ()
    assert sum(fixed.drafted_at) == sum(run.runs["fixed:4:0"].drafted for run in report.trials)
    assert sum(fixed.widths.values()) == sum(fixed.accepted_lengths.values())
    assert set(fixed.speed_by_kind) == {"numbers", "story"}
    assert fixed.chosen["runtime"]["threads"] == 1
    assert all(len(run.times) == run.predicted for trial in report.trials for run in trial.runs.values())
    assert len(names[1].read_text(encoding="utf-8").splitlines()) == 1 + 6 * 3
    assert str(tmp_path) not in names[0].read_text(encoding="utf-8")
    assert not list(tmp_path.glob("*.partial"))
    compared = RUNNER.invoke(app, ["bench", "--compare", str(names[0]), str(names[0])])
    verdict = "within noise" if report.conclusive else "too noisy"
    assert compared.exit_code == 0 and verdict in compared.stdout


def test_json_on_standard_output_is_alone_there(pair: tuple[str, str], tmp_path: Path) -> None:
    report = reported(bench(pair[:1], tmp_path, "--json", "-", "--workload", "story"))
    assert [outcome["setting"] for outcome in report["outcomes"]] == ["plain", "auto"]
    assert [trial["prompt"] for trial in report["trials"]] == ["tale"]
    assert report["draft"] is None
    assert not (tmp_path / "cache" / "measured").exists(), "nothing that was learnt is kept"


def profile(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.yaml"
    path.write_text(f"{{schema: 1, name: {name}, main: {{repo: o/r, file: main.gguf}}}}", encoding="utf-8")
    return ["-p", str(path)]


def test_a_profile_gives_its_settings_to_other_models(pair: tuple[str, str], tmp_path: Path) -> None:
    small = profile(tmp_path, "small")
    report = reported(bench(pair[:1], tmp_path, *small, "--settings", "profile", "-q", "--json", "-"))
    assert [outcome["setting"] for outcome in report["outcomes"]] == ["plain", "profile"]
    assert report["outcomes"][1]["chosen"]["profile"] == "small"
    assert report["outcomes"][1]["chosen"]["speculation"]["mode"] == "auto"


def test_several_profiles_are_several_pairs(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [*profile(tmp_path, "small"), *profile(tmp_path, "large")]
    assert isinstance(bench(pair[:1], tmp_path, *both).exception, UsageError)
    monkeypatch.setattr("llamaspec.session.fetch", lambda source, progress: resolve(pair[0]))
    result = bench((), tmp_path, *both, "-q", "--json", str(tmp_path / "r.json"), "--workload", "story")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.glob("r.*")} == {"r.small.json", "r.large.json"}
    assert result.stdout.count("tokens/s") == 3, "a table for each, and one of both"


def _work(folder: Path) -> Path:
    path = folder / "work.yaml"
    path.write_text(WORKLOAD, encoding="utf-8")
    return path


class Watched:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.trials = 0

    def loading(self, what: str) -> None:
        self.told.append(f"loading {what}")

    def noticed(self, finding: Finding) -> None:
        self.told.append(finding.problem)

    def begins(self, trials: int, seconds: float) -> None:
        assert seconds > 0
        self.told.append(f"{trials} trials")

    def tried(self, trial: TrialRecord, number: int, seconds_left: float) -> None:
        assert seconds_left >= 0
        self.trials = number

    def finishing(self, what: str) -> None:
        self.told.append(what)


def measured(
    main: str,
    watch: Watched,
    stop: Callable[[], bool] = lambda: False,
    prompt: str = "one two",
    **more: Any,
) -> Report:
    prompts = [Prompt(name=f"p{number}", kind="k", prompt=prompt) for number in range(3)]
    task = Task(named(["plain", "auto"]), Workload(prompts=prompts), "mine", 6)

    def open_one(overrides: Overrides) -> Session:
        runtime = {"ctx_size": 128, "threads": 1, "device": "cpu"}
        return load(main=main, settings={**overrides, "runtime": runtime}, remember=False)

    @contextmanager
    def interrupt() -> Iterator[Callable[[], bool]]:
        yield stop

    return measure(task, open_one, watch, interrupt=interrupt, **more)


def test_who_stops_keeps_what_is_done(pair: tuple[str, str]) -> None:
    watch = Watched()
    report = measured(pair[0], watch, lambda: watch.trials == 2)
    assert len(report.trials) == 2
    assert report.findings[-1].problem == "Stopped after 2 of 3 trials."
    assert watch.told[:2] == ["loading plain", "loading auto"] and "3 trials" in watch.told


def test_who_stops_before_the_first_trial_has_nothing(pair: tuple[str, str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        measured(pair[0], Watched(), lambda: True)


def test_a_prompt_without_room_is_refused_before_the_first_trial(pair: tuple[str, str]) -> None:
    watch = Watched()
    with pytest.raises(ContextError, match=r"p0 has .* tokens and the context 128"):
        measured(pair[0], watch, prompt="one two three " * 200)
    assert watch.trials == 0


def test_texts_that_part_are_reported_with_their_gap(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def parted(session: Session, prompt: Any, ours: Any, plain: Any) -> Any:
        asked.append(session.profile.speculation.mode)
        return type("Parted", (), {"logit_gap": 0.25})

    monkeypatch.setattr("llamaspec.bench.paired.first_difference", lambda one, other: 3)
    monkeypatch.setattr(Session, "first_divergence", parted)
    report = measured(pair[0], Watched())
    auto = report.outcome("auto")
    assert [(each.prompt, each.position, each.logit_gap) for each in auto.differences] == [
        (f"p{number}", 3, 0.25) for number in range(3)
    ]
    assert auto.same_text == 0 and asked == ["auto"] * 3


class FakePeer:
    def __init__(self, answers: int = 99) -> None:
        self.asked: list[str] = []
        self.answers = answers

    def answer(self, prompt_text: str, n_predict: int) -> Any:
        if len(self.asked) == self.answers:
            raise LlamaspecError("It has gone.")
        self.asked.append(prompt_text)
        seconds = {"seconds": 1.0, "prompt_seconds": 0.5}
        return {"predicted": n_predict, "timed_tokens": n_predict - 1, "prompt_tokens": 3, **seconds}


def test_a_peer_answers_every_prompt_as_it_is_rendered(pair: tuple[str, str]) -> None:
    peer, opened = FakePeer(), list[str]()

    @contextmanager
    def open_peer(session: Session) -> Iterator[FakePeer]:
        opened.append(session.files[0].path.name)
        yield peer
        opened.append("closed")

    report = measured(pair[0], Watched(), peers={"other": open_peer})
    assert opened == ["main.gguf", "closed"]
    assert len(peer.asked) == 3 and "one two" in peer.asked[0] and peer.asked[0] != "one two"
    assert report.outcome("other").speed.value == pytest.approx(5.0)
    assert report.outcome("other").program == "other"


def opened(peer: FakePeer) -> dict[str, Any]:
    return {"peers": {"other": lambda session: nullcontext(peer)}}


def test_a_peer_that_fails_at_once_ends_it(pair: tuple[str, str]) -> None:
    with pytest.raises(LlamaspecError, match="gone"):
        measured(pair[0], Watched(), **opened(FakePeer(answers=0)))


def test_a_peer_that_fails_later_costs_only_its_own_figures(
    pair: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watched()
    report = measured(pair[0], watch, **opened(FakePeer(answers=2)))
    assert len(report.trials) == 3 and "other" not in report.trials[2].runs
    problem = "other failed after 2 trials: its figures are of these alone."
    assert problem in watch.told and problem in [finding.problem for finding in report.findings]
    assert "It has gone." in caplog.text
    assert report.outcome("other").relative.count == 2 and report.outcome("auto").relative.count == 3


def test_a_peer_that_ctrl_c_has_ended_is_no_failure(pair: tuple[str, str]) -> None:
    peer, watch = FakePeer(answers=2), Watched()
    report = measured(pair[0], watch, lambda: watch.trials == 2, **opened(peer))
    assert len(report.trials) == 2 and report.findings[-1].problem.startswith("Stopped after 2")
    assert not any("failed" in finding.problem for finding in report.findings)


@pytest.mark.parametrize("name", ["plain", "auto", "llamaspec"])
def test_a_peer_is_not_called_what_a_setting_is(pair: tuple[str, str], tmp_path: Path, name: str) -> None:
    result = bench(pair[:1], tmp_path, "--settings", "auto", "--peer", f"{name}={sys.executable}")
    assert isinstance(result.exception, UsageError) and "no name for a peer" in result.exception.message


def test_answers_of_one_token_are_reported_without_a_speed(pair: tuple[str, str], tmp_path: Path) -> None:
    page, work = tmp_path / "r.html", tmp_path / "short.yaml"
    work.write_text("prompts: [{name: word, kind: short, prompt: Say one, n_predict: 1}]", encoding="utf-8")
    result = bench(pair, tmp_path, "--workload", str(work), "--workload", "short", "--html", str(page))
    assert result.exit_code == 0, result.output
    assert "Nothing could be timed" in result.stdout and "faster" not in result.stdout
    assert "Nothing could be timed" in page.read_text(encoding="utf-8")


def test_bytes_of_a_token(tmp_path: Path) -> None:
    header = read_model(tiny_llama(tmp_path / "main.gguf"))
    facts = describe(header)
    sizes = {tensor.name: tensor.bytes for tensor in header.tensors}
    own_output = "output.weight" in sizes
    weights = sum(sizes.values()) - (sizes["token_embd.weight"] if own_output else 0)
    per_token = sum(facts.kv_bytes_per_token())
    assert bytes_per_token(header, facts, 0) == weights
    assert bytes_per_token(header, facts, 100) == weights + 100 * per_token
    assert bytes_per_token(header, facts, 100, "q8_0", "q8_0") < weights + 100 * per_token


def test_work_is_chosen_from_files_and_kinds(tmp_path: Path) -> None:
    path = str(_work(tmp_path))
    shipped, name = choose_work([])
    assert (name, len(shipped.prompts)) == ("default", len(shipped.kinds))
    assert len(choose_work(["code"], 3)[0].prompts) == 3
    assert [prompt.name for prompt in choose_work([path])[0].prompts] == ["count", "again", "tale"]
    assert [prompt.name for prompt in choose_work([path, "numbers"], 1)[0].prompts] == ["count"]
    with pytest.raises(UsageError, match="measured together: prompts of the same name: count"):
        choose_work([path, path])
    with pytest.raises(UsageError, match="of the kind code"):
        choose_work([path, "code"])
