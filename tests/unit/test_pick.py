"""Which draft is picked: from headers alone, and on made-up machines."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gguf_files import VOCAB, tiny_llama

from llamaspec.bench.families import families, known_drafts
from llamaspec.bench.pick import NGRAMS, NO_DRAFT, Option, best, find_options, measure, ranked
from llamaspec.bench.tuning.candidates import Candidate
from llamaspec.bench.tuning.race import Heat, Sample, State
from llamaspec.bench.workload import Prompt, load_workload
from llamaspec.errors import CorruptGGUFError, NotGGUFError
from llamaspec.gguf.shards import read_model
from llamaspec.settings import RuntimeSettings

PROMPTS = load_workload().prompts
RUNTIME = RuntimeSettings(ctx_size=128)
PLENTY = 1 << 40


def model(name: str, size: int = 100, **more: object) -> Option:
    return Option("model", name, Path(name), name, size=size, **more)  # type: ignore[arg-type]


@dataclass
class Machine:
    """Answers by the option's name, with noise."""

    speeds: dict[str, float]
    noise: float = 0.01
    capacity: int = 4
    failing: str = ""
    spent: float = 0.0
    fields: list[list[str]] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(3))

    def __call__(self, field: Sequence[Candidate], prompt: Prompt, n_predict: int) -> Heat:
        self.fields.append([one.name for one in field])
        samples = {
            one.key: Sample(self.speeds[one.name] * self.chance.lognormvariate(0.0, self.noise), 100.0)
            for one in field
            if one.name != self.failing
        }
        failed = {one.key: "It broke." for one in field if one.name == self.failing}
        self.spent += 5.0 * len(field)
        return Heat(samples, failed, 5.0 * len(field))


def picked(machine: Machine, *models: Option, seconds: float = 300.0) -> tuple[str, list[Option]]:
    options = [NO_DRAFT, NGRAMS, *models]
    tally = measure(options, machine, PROMPTS[:8], seconds, 64)
    return best(options, tally).name, ranked(options, tally)


def test_the_fastest_is_picked_and_stands_first() -> None:
    machine = Machine({"no draft at all": 20, "n-grams alone": 21, "a": 30, "b": 25})
    name, rows = picked(machine, model("a"), model("b", 50))
    assert name == "a"
    assert [one.name for one in rows] == ["a", "b", "n-grams alone", "no draft at all"]
    assert rows[0].speedup is not None and rows[0].speedup.value == pytest.approx(1.5, rel=0.02)


def test_without_time_one_heat_is_run_and_decides_nothing() -> None:
    machine = Machine({"no draft at all": 20, "n-grams alone": 21, "a": 30}, spent=500.0)
    name, rows = picked(machine, model("a"), seconds=300.0)
    assert name == "no draft at all" and len(machine.fields) == 1
    assert [one.name for one in rows if one.undecided] == ["n-grams alone", "a"]
    assert not any(one.undecided for one in picked(machine, model("a"), seconds=900.0)[1])


def test_where_speculation_loses_there_is_none() -> None:
    machine = Machine({"no draft at all": 20, "n-grams alone": 19, "a": 12})
    name, rows = picked(machine, model("a"))
    assert name == "no draft at all"
    assert rows[0].name == "no draft at all"


def test_among_equals_the_simplest_is_picked() -> None:
    machine = Machine({"no draft at all": 20, "n-grams alone": 30, "a": 30, "b": 30}, noise=0.04)
    assert picked(machine, model("a"), model("b"))[0] == "n-grams alone"
    machine = Machine({"no draft at all": 20, "n-grams alone": 20, "large": 30, "small": 30}, noise=0.04)
    assert picked(machine, model("large", 200), model("small", 50))[0] == "small"


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_groups_are_as_large_as_the_memory(capacity: int) -> None:
    speeds: dict[str, float] = {"no draft at all": 20, "n-grams alone": 20, "a": 24, "b": 30}
    machine = Machine(speeds, capacity=capacity)
    assert picked(machine, model("a"), model("b"), seconds=900.0)[0] == "b"
    assert max(map(len, machine.fields)) == max(2, capacity)
    assert {name for names in machine.fields for name in names} == set(speeds)


def test_what_fails_is_told() -> None:
    machine = Machine({"no draft at all": 20, "n-grams alone": 20, "a": 24}, failing="a")
    _, rows = picked(machine, model("a"))
    assert next(one for one in rows if one.name == "a").failed == "It broke."
    assert sum("a" in names for names in machine.fields) == 1


def test_nothing_that_can_not_be_used_is_measured() -> None:
    machine = Machine({"no draft at all": 20, "n-grams alone": 20})
    absent = Option("model", "absent", reference="some/absent:Q8_0", size=10)
    states: list[State] = []
    options = [NO_DRAFT, NGRAMS, absent, model("other", problem="Other tokens."), model("huge", fits=False)]
    tally = measure(options, machine, PROMPTS[:4], 300.0, 64, states.append)
    names = [one.name for one in ranked(options, tally)]
    assert set(names[:2]) == {"no draft at all", "n-grams alone"}
    assert names[2:] == ["absent", "other", "huge"]
    assert states[-1].total == 300.0 and states[-1].doing == "n-grams alone"


def test_too_little_time_leaves_it_without_a_draft() -> None:
    machine = Machine({"no draft at all": 20, "n-grams alone": 40})
    assert picked(machine, seconds=15.0)[0] == "no draft at all"


def test_unmeasured_the_smallest_stands_first() -> None:
    rows = ranked([NO_DRAFT, NGRAMS, model("b", 20), model("a", 10), Option("model", "known", size=5)])
    assert [one.name for one in rows[2:]] == ["a", "b", "known"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a main model, and empty caches."""
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("llamaspec.hub.inventory.scan_cache", lambda: None)
    (tmp_path / "here").mkdir()
    tiny_llama(tmp_path / "here" / "main.gguf", layers=4)
    return tmp_path / "here"


def by_name(options: Sequence[Option]) -> dict[str, Option]:
    return {one.name: one for one in options}


def test_models_beside_the_main_one_are_found_with_what_is_wrong(folder: Path) -> None:
    tiny_llama(folder / "good.gguf", layers=1)
    tiny_llama(folder / "alien.gguf", layers=1, vocab=VOCAB.differing_at(70, "other"))
    tiny_llama(folder / "large.gguf", layers=6)
    (folder / "broken.gguf").write_bytes(b"GGUF nonsense")
    (folder / "notes.txt").write_text("no model", encoding="utf-8")
    found = by_name(find_options(folder / "main.gguf", [], RUNTIME, PLENTY))
    assert found.keys() == {
        *("no draft at all", "n-grams alone", "good.gguf", "alien.gguf", "large.gguf", "broken.gguf")
    }
    assert found["good.gguf"].usable and "GiB" in found["good.gguf"].fit
    assert "Token 70" in found["alien.gguf"].problem
    assert "not smaller" in found["large.gguf"].problem
    assert found["broken.gguf"].problem and not found["broken.gguf"].usable


def test_models_that_are_named_and_cached_are_found_once(folder: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "models" / "0123456789abcdef" / "cached.gguf"
    cached.parent.mkdir(parents=True)
    tiny_llama(cached, layers=1)
    elsewhere = tiny_llama(tmp_path / "named.gguf", layers=2)
    tiny_llama(folder / "good.gguf", layers=1)
    named = [elsewhere, folder / "good.gguf"]
    options = find_options(folder / "main.gguf", named, RUNTIME, PLENTY)
    assert [one.name for one in options if one.kind == "model"] == ["named.gguf", "good.gguf", "cached.gguf"]
    assert by_name(options)["cached.gguf"].reference == str(cached)


def test_what_does_not_fit_in_memory_says_so(folder: Path) -> None:
    tiny_llama(folder / "good.gguf", layers=1)
    option = by_name(find_options(folder / "main.gguf", [], RUNTIME, 1000))["good.gguf"]
    assert not option.usable and "are free" in option.fit


@pytest.mark.parametrize(
    ("content", "error"), [(b"no model", NotGGUFError), (b"GGUF\x03\0\0\0", CorruptGGUFError)]
)
def test_a_main_model_that_is_none_is_an_error(folder: Path, content: bytes, error: type[Exception]) -> None:
    (folder / "main.gguf").write_bytes(content)
    with pytest.raises(error):
        find_options(folder / "main.gguf", [], RUNTIME, PLENTY)


def test_a_family_is_told_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_model(tiny_llama(tmp_path / "main.gguf", arch="qwen2"))
    told = dict(header.values)
    assert known_drafts(header) == ()
    told["tokenizer.ggml.pre"] = "qwen2"
    monkeypatch.setattr(type(header), "text", lambda self, key: told.get(key))
    assert known_drafts(header)[0].repo == "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"
    told["general.architecture"] = "qwen3"
    assert known_drafts(header)[0].reference == "Qwen/Qwen3-0.6B-GGUF:Q8_0"


def test_the_catalogue_is_sound() -> None:
    shipped = families()
    told = [(arch, family.tokenizer) for family in shipped for arch in family.architectures]
    assert len(set(told)) == len(told), "a header belongs to one family"
    for family in shipped:
        sizes = [draft.size for draft in family.drafts]
        assert sizes == sorted(sizes) and sizes[0] < 2_000_000_000
