"""The search on made-up machines: what it takes, what it leaves, and what it does when time is short."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llamaspec.bench.tuning.candidates import Candidate, Scope, stages
from llamaspec.bench.tuning.contest import NO_GAIN, NOT_TRIED, SLOWER, UNCLEAR, WON
from llamaspec.bench.tuning.journal import Journal
from llamaspec.bench.tuning.race import Heat, Sample, State
from llamaspec.bench.tuning.search import Found, Search, split
from llamaspec.bench.workload import Prompt, Workload, load_workload
from llamaspec.errors import UsageError
from llamaspec.hub.sources import ModelSource
from llamaspec.profiles import Profile, overlay

PROFILE = Profile(
    schema=1,
    name="made-up",
    main=ModelSource(repo="some/main", file="main.gguf"),
    draft=ModelSource(repo="some/draft", file="draft.gguf"),
)
SCOPE = Scope(cores=4, processors=8, has_draft=True, smaller_draft="Q4_0")
SHIPPED = split(load_workload())

Speeds = Callable[[Profile, str, Prompt], float]


@dataclass
class Machine:
    """Answers at `speed` tokens per second, with noise of each lane and a mood that all lanes share."""

    speed: Speeds
    noise: float = 0.01
    capacity: int = 4
    breaks: Callable[[Profile], bool] = lambda profile: False
    reading: Speeds = lambda profile, draft, prompt: 100.0
    spent: float = 0.0
    heats: list[list[str]] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def __call__(self, field: Sequence[Candidate], prompt: Prompt, n_predict: int) -> Heat:
        self.heats.append([one.name for one in field])
        samples, failed, seconds = {}, {}, 0.0
        mood = self.chance.uniform(0.7, 1.3)
        for one in field:
            profile = overlay(PROFILE, one.overrides)
            if self.breaks(profile):
                failed[one.key] = "There is not enough memory."
                continue
            luck = mood * self.chance.lognormvariate(0.0, self.noise)
            writing = self.speed(profile, one.draft, prompt) * luck
            samples[one.key] = Sample(writing, self.reading(profile, one.draft, prompt) * luck)
            seconds += n_predict / writing
        self.spent += seconds
        return Heat(samples, failed, seconds)


def threads(profile: Profile) -> int:
    return 4 if profile.runtime.threads == "auto" else profile.runtime.threads


def flat(profile: Profile, draft: str, prompt: Prompt) -> float:
    return 20.0


def search(machine: Machine, seconds: float = 600.0, scope: Scope = SCOPE, **more: object) -> Found:
    found = Search(PROFILE, scope, stages(PROFILE, scope), SHIPPED, machine, seconds, 64, **more)  # type: ignore[arg-type]
    return found.run()


def outcomes(found: Found) -> dict[str, str]:
    return {one.change.name: one.outcome for one in found.tried}


def test_it_finds_what_is_faster_and_proves_it() -> None:
    def speed(profile: Profile, draft: str, prompt: Prompt) -> float:
        gain = {2: 0.7, 3: 1.1, 4: 1.0, 8: 0.8}[threads(profile)]
        return 20.0 * gain * (1.2 if draft == "Q4_0" else 1.0)

    found = search(Machine(speed, noise=0.02))
    assert found.chosen.name == "draft as Q4_0, threads 3"
    assert found.chosen.overrides == {"runtime": {"threads": 3, "threads_batch": 4}}
    assert found.chosen.draft == "Q4_0"
    told = found.proof
    assert (
        told.held_in is not None
        and told.held_in.low > 1.0
        and told.held_in.value == pytest.approx(1.32, rel=0.03)
    )
    assert told.held_out is not None and told.held_out.value == pytest.approx(1.32, rel=0.03)
    assert outcomes(found)["threads 3"] == WON
    assert outcomes(found)["threads 2"] == SLOWER


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_never_taken_for_a_gain(seed: int) -> None:
    """Every setting is as fast as any other."""
    found = search(Machine(flat, noise=0.05, chance=random.Random(seed)))
    assert found.chosen == Candidate()
    assert found.proof.plain is not None and found.proof.speculative is not None


def test_where_speculation_loses_it_is_switched_off() -> None:
    def speed(profile: Profile, draft: str, prompt: Prompt) -> float:
        return 20.0 if profile.speculation.mode == "off" else 15.0

    found = search(Machine(speed))
    assert found.chosen.overrides["speculation"] == {"mode": "off"}
    assert found.proof.speedup is not None and found.proof.speedup.value == 1.0


def test_what_is_not_clear_in_time_is_proven_if_it_is_much_faster() -> None:
    def speed(profile: Profile, draft: str, prompt: Prompt) -> float:
        return 20.0 if profile.speculation.mode == "off" else 12.0

    found = search(Machine(speed, noise=0.05), seconds=140.0)
    assert outcomes(found)["no speculation"] == UNCLEAR
    assert found.chosen.overrides["speculation"] == {"mode": "off"}


def test_a_gain_on_held_in_prompts_alone_is_not_taken() -> None:
    known = {prompt.name for prompt in SHIPPED.held_in}

    def speed(profile: Profile, draft: str, prompt: Prompt) -> float:
        return 20.0 * (1.0 if draft == "" else 1.3 if prompt.name in known else 0.9)

    found = search(Machine(speed))
    assert found.chosen == Candidate()
    assert found.contender.draft == "Q4_0"
    assert "not faster beyond the noise" in found.why
    assert found.proof.contender == Candidate(), "the figures are those of what stays"


def test_time_that_runs_out_leaves_the_default() -> None:
    machine = Machine(lambda profile, draft, prompt: 22.0 if draft else 20.0)
    found = search(machine, seconds=20.0)
    assert found.chosen == Candidate()
    assert set(outcomes(found).values()) <= {NOT_TRIED, SLOWER, NO_GAIN, UNCLEAR}
    assert found.proof.plain is not None, "there are figures all the same"


def test_the_time_is_kept() -> None:
    machine = Machine(lambda profile, draft, prompt: 20.0 + 5.0 * threads(profile), noise=0.05)
    search(machine, seconds=300.0)
    assert machine.spent < 300.0 * 1.1


def test_what_fails_is_told_and_left_out() -> None:
    machine = Machine(flat, breaks=lambda profile: profile.runtime.flash_attn == "on")
    found = search(machine)
    assert outcomes(found)["flash attention on"] == "failed: There is not enough memory."
    assert sum("flash attention on" in names for names in machine.heats) == 1
    assert found.chosen == Candidate()


def test_faster_reading_is_a_gain_too() -> None:
    def reading(profile: Profile, draft: str, prompt: Prompt) -> float:
        return 150.0 if profile.runtime.threads_batch == 8 else 100.0

    found = search(Machine(flat, reading=reading))
    assert found.chosen.overrides == {"runtime": {"threads_batch": 8}}
    assert "prompts are read 1." in found.why


def test_faster_writing_is_not_paid_for_with_reading() -> None:
    def speed(profile: Profile, draft: str, prompt: Prompt) -> float:
        return 30.0 if profile.runtime.flash_attn == "off" else 20.0

    def reading(profile: Profile, draft: str, prompt: Prompt) -> float:
        return 50.0 if profile.runtime.flash_attn == "off" else 100.0

    assert search(Machine(speed, reading=reading)).chosen == Candidate()


@pytest.mark.parametrize("capacity", [1, 2, 4])
def test_no_more_race_than_fit(capacity: int) -> None:
    machine = Machine(lambda profile, draft, prompt: 26.0 if draft else 20.0, capacity=capacity)
    found = search(machine)
    assert max(len(names) for names in machine.heats) <= max(3, capacity)
    assert found.chosen.draft == "Q4_0"


def test_it_tells_where_it_is() -> None:
    states: list[State] = []
    search(Machine(flat), on_state=states.append)
    assert states[0].stage == "speculation"
    assert states[-1].stage == "proof"
    assert all(one.total == 600.0 for one in states)
    assert [one.spent for one in states] == sorted(one.spent for one in states)


class Stop(Exception):
    pass


@dataclass
class Limited:
    """Stops as Ctrl-C does, after so many heats."""

    machine: Machine
    most: int

    @property
    def capacity(self) -> int:
        return self.machine.capacity

    @property
    def spent(self) -> float:
        return 0.0

    def __call__(self, field: Sequence[Candidate], prompt: Prompt, n_predict: int) -> Heat:
        if self.most == 0:
            raise Stop
        self.most -= 1
        return self.machine(field, prompt, n_predict)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path))
    return tmp_path


def better_draft(profile: Profile, draft: str, prompt: Prompt) -> float:
    return 26.0 if draft else 20.0


def journaled(live: Limited, *, resume: bool = False) -> tuple[Journal, Search]:
    journal = Journal({"pair": "made-up"}, lambda: live, resume=resume)
    return journal, Search(PROFILE, SCOPE, stages(PROFILE, SCOPE), SHIPPED, journal, 600.0, 64)


@pytest.mark.parametrize("stopped_after", [1, 7, 25])
def test_resumed_it_comes_to_the_same(cache: Path, stopped_after: int) -> None:
    whole = journaled(Limited(Machine(better_draft, noise=0.03), 1000))[1].run()
    machine = Machine(better_draft, noise=0.03)
    with pytest.raises(Stop):
        journaled(Limited(machine, stopped_after))[1].run()
    journal, resumed = journaled(Limited(machine, 1000), resume=True)
    assert journal.found and journal.heats == stopped_after
    found = resumed.run()
    assert (found.chosen, found.why, found.tried) == (whole.chosen, whole.why, whole.tried)
    journal.forget()
    assert not Journal({"pair": "made-up"}, lambda: Limited(machine, 0), resume=True).found


def test_a_search_that_was_done_needs_no_machine_to_be_told_again(cache: Path) -> None:
    found = journaled(Limited(Machine(better_draft), 1000))[1].run()
    again = journaled(Limited(Machine(better_draft), 0), resume=True)[1].run()
    assert again.why == found.why


def test_without_resume_it_starts_over(cache: Path) -> None:
    with pytest.raises(Stop):
        journaled(Limited(Machine(flat), 3))[1].run()
    journal, _ = journaled(Limited(Machine(flat), 3))
    assert journal.found and journal.heats == 0


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"capacity": 4}',
        '{"capacity": 4, "opening": 0, "heats": [{"name": "x"}]}',
        '{"capacity": "x"}',
    ],
)
def test_a_damaged_record_is_none(cache: Path, damage: str) -> None:
    with pytest.raises(Stop):
        journaled(Limited(Machine(flat), 3))[1].run()
    journaled(Limited(Machine(flat), 0))[0].path.write_text(damage, encoding="utf-8")
    journal, _ = journaled(Limited(Machine(flat), 3), resume=True)
    assert journal.heats == 0


def test_the_record_is_plain_data_without_prompts(cache: Path) -> None:
    journal, one = journaled(Limited(Machine(flat), 3))
    with pytest.raises(Stop):
        one.run()
    text = journal.path.read_text(encoding="utf-8")
    assert len(json.loads(text)["heats"]) == 3
    assert SHIPPED.held_in[0].prompt not in text


def names(scope: Scope, profile: Profile = PROFILE) -> dict[str, list[str]]:
    return {stage.name: [change.name for change in stage.changes] for stage in stages(profile, scope)}


def test_only_what_differs_is_tried() -> None:
    two_cores = names(Scope(cores=2, processors=2, has_draft=True))
    assert two_cores["threads"] == ["threads 1"]
    assert "batch threads" not in two_cores
    assert "draft" not in two_cores and "placement" not in two_cores and "KV cache" not in two_cores
    assert "auto" not in two_cores["speculation"], "the default is auto"
    fixed = overlay(PROFILE, {"speculation": {"mode": "fixed", "draft_max": 4}})
    assert "auto" in names(SCOPE, fixed)["speculation"]
    assert "fixed 4" not in names(SCOPE, fixed)["speculation"]


def test_the_kv_cache_is_changed_only_where_that_is_allowed() -> None:
    assert "KV cache" not in names(SCOPE)
    assert names(Scope(cores=4, processors=4, lossy_kv=True))["KV cache"] == ["KV cache q8_0", "K cache q8_0"]


def test_a_gpu_has_stages_of_its_own() -> None:
    gpu = names(Scope(cores=4, processors=8, has_gpu=True, offloaded=True, has_draft=True))
    assert gpu["placement"] == ["draft on the CPU", "main model on the CPU", "all on the CPU"]
    assert "threads" not in gpu, "nothing is computed by the processor"
    assert gpu["batch size"] == ["batches of 256", "batches of 1024", "batches of 2048"]


def test_what_the_person_has_set_stays() -> None:
    kept = Scope(cores=4, processors=8, has_gpu=True, has_draft=True, kept=frozenset({"threads", "device"}))
    tried = names(kept)
    assert "threads" not in tried
    assert "all on the CPU" not in tried["placement"]


def test_without_a_draft_there_is_nothing_to_ask_of_one() -> None:
    tried = names(Scope(cores=4, processors=4))["speculation"]
    assert tried == ["no speculation", "n-grams, fixed 8"]


def test_the_split_holds_a_prompt_of_each_kind_out() -> None:
    work = load_workload()
    assert {prompt.kind for prompt in SHIPPED.held_out} == set(work.kinds)
    assert not set(SHIPPED.held_in) & set(SHIPPED.held_out)
    assert len(SHIPPED.held_in) + len(SHIPPED.held_out) == len(work.prompts)
    assert len({prompt.kind for prompt in SHIPPED.held_in[:8]}) == 8


def workload(*kinds: str) -> Workload:
    return Workload(prompts=[Prompt(name=f"p{i}", kind=kind, prompt="Hello") for i, kind in enumerate(kinds)])


def test_a_small_workload_is_split_too() -> None:
    assert [
        len(part) for part in (split(workload("a", "b")).held_in, split(workload("a", "b")).held_out)
    ] == [1, 1]
    assert [prompt.name for prompt in split(workload("a", "a", "b")).held_out] == ["p1"]
    with pytest.raises(UsageError, match="two prompts"):
        split(workload("a"))
