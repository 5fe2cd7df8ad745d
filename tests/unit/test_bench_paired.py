"""Paired runs on a made-up machine: who goes next, whose time counts, what comes out of it."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import pytest
from fake.backend import FakeBackend, FakeVocabulary
from fake.running import PROMPT, follows, plain

from llamaspec.bench.paired import (
    WARM_UP,
    Lane,
    compare,
    first_difference,
    next_lane,
    open_sessions,
)
from llamaspec.bench.workload import Prompt
from llamaspec.decode.sequence import Request
from llamaspec.engine.engine import Engine
from llamaspec.errors import DecodeError, OutOfMemoryError
from llamaspec.events import FinishEvent, FinishReason, TextEvent
from llamaspec.settings import SamplingSettings, SpeculationSettings
from llamaspec.stats import Stats

HELLO = Prompt(name="hello", kind="chat", prompt="Hello?")


@dataclass
class Machine:
    """Time passes only in work, which takes the longer the slower the machine is at that moment."""

    slowness: Callable[[float], float] = lambda now: 1.0
    now: float = 0.0

    def clock(self) -> float:
        return self.now

    def work(self, amount: float) -> None:
        self.now += amount * self.slowness(self.now)


@dataclass
class FakeSession:
    """Each round takes `work` and gives `width` tokens, up to n_predict or, before that, `end` of them."""

    machine: Machine
    name: str
    work: float
    width: int = 1
    end: int | None = None
    prompt_work: float = 1.0
    log: list[str] = field(default_factory=list)
    failure: int | None = None
    finish_reason: FinishReason | None = None
    stats: Stats = field(default_factory=Stats)
    closed: int = 0
    asked: list[tuple[str, Mapping[str, Mapping[str, object]]]] = field(default_factory=list)

    def chat(self, prompt: str, *, settings: Mapping[str, Mapping[str, object]]) -> Generator[TextEvent]:
        self.asked.append((prompt, settings))
        return self._answer(int(str(settings["sampling"]["n_predict"])))

    def _answer(self, n_predict: int) -> Iterator[TextEvent]:
        self.stats, self.finish_reason = Stats(prompt_tokens=5), None
        most = n_predict if self.end is None else min(n_predict, self.end)
        try:
            while (done := self.stats.predicted_tokens) < most:
                self.log.append(self.name)
                if done == self.failure:
                    raise DecodeError("It broke.")
                self.machine.work(self.prompt_work if done == 0 else self.work)
                width = 1 if done == 0 else min(self.width, most - done)
                self.stats.rounds += done > 0
                self.stats.predicted_tokens += width
                ends = done + width == self.end
                for token in range(done, done + width - ends):
                    yield TextEvent(0, "x", (token,), False)
            self.finish_reason = FinishReason.LENGTH if most == n_predict else FinishReason.STOP
        finally:
            self.closed += 1

    def __enter__(self) -> "FakeSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append(f"closed {self.name}")


def lane(predicted: int, last_turn: int, done: bool = False) -> Lane:
    return Lane(iter(()), FakeSession(Machine(), "", 1.0), last_turn, predicted, done=done)


@pytest.mark.parametrize(
    ("lanes", "chosen"),
    [
        ([lane(0, 0), lane(0, 0)], 0),
        ([lane(1, 1), lane(0, 0)], 1),
        ([lane(5, 1), lane(3, 9), lane(4, 2)], 1),
        ([lane(4, 8), lane(4, 7), lane(4, 9)], 1),
        ([lane(2, 1, done=True), lane(9, 2)], 1),
    ],
)
def test_the_least_far_goes_next_and_of_these_the_longest_waiting(lanes: list[Lane], chosen: int) -> None:
    assert next_lane(lanes) is lanes[chosen]


def test_nobody_goes_when_all_are_done() -> None:
    assert next_lane([]) is None
    assert next_lane([lane(1, 1, done=True)]) is None


def test_all_read_the_prompt_first_and_then_stay_side_by_side() -> None:
    machine, log = Machine(), list[str]()
    sessions = {
        "a": FakeSession(machine, "a", 1.0, log=log),
        "b": FakeSession(machine, "b", 2.0, width=4, log=log),
        "c": FakeSession(machine, "c", 9.0, log=log),
    }
    compare(sessions, HELLO, 10, machine.clock)
    # b comes out of its round with 5 tokens: it waits until the others have as many, a and c in turns.
    assert "".join(log) == "abc" + "abc" + "ac" * 3 + "acb" + "ac" * 3 + "acb"[:2] + "b"


def test_only_the_own_turns_count_prompt_apart() -> None:
    machine = Machine()
    sessions = {
        "slow": FakeSession(machine, "slow", 3.0, prompt_work=7.0),
        "fast": FakeSession(machine, "fast", 4.0, width=4, prompt_work=5.0),
    }
    runs = compare(sessions, HELLO, 9, machine.clock).runs
    slow, fast = runs["slow"], runs["fast"]
    assert (slow.prompt_seconds, slow.seconds, slow.timed_tokens, slow.rounds) == (7.0, 24.0, 8, 8)
    assert (fast.prompt_seconds, fast.seconds, fast.timed_tokens, fast.rounds) == (5.0, 8.0, 8, 2)
    assert slow.predicted == fast.predicted == 9
    assert slow.tokens == fast.tokens == tuple(range(9))
    assert slow.finish is FinishReason.LENGTH
    assert machine.now == 7.0 + 24.0 + 5.0 + 8.0


def test_a_machine_that_drifts_does_not_move_the_ratio() -> None:
    """By a half to and fro, which runs one after the other would take for the settings'."""
    machine = Machine(lambda now: 1.0 + 0.5 * (int(now / 40) % 2))
    sessions = {
        "plain": FakeSession(machine, "plain", 1.0),
        "other": FakeSession(machine, "other", 2.0, width=4),
    }
    runs = compare(sessions, HELLO, 201, machine.clock).runs
    assert runs["other"].speed / runs["plain"].speed == pytest.approx(2.0, rel=0.03)


def test_settings_are_greedy_and_the_prompt_may_shorten_the_answer() -> None:
    machine = Machine()
    session = FakeSession(machine, "a", 1.0)
    short = HELLO.model_copy(update={"n_predict": 3})
    assert compare({"a": session}, short, 9, machine.clock).runs["a"].predicted == 3
    assert compare({"a": session}, HELLO, 9, machine.clock).runs["a"].predicted == 9
    prompt, settings = session.asked[0]
    assert prompt == "Hello?"
    assert settings == {"sampling": {"temperature": 0.0, "n_predict": 3, "ignore_eos": False}}


def test_the_others_go_on_when_one_has_ended() -> None:
    machine = Machine()
    sessions = {
        "ends": FakeSession(machine, "ends", 1.0, end=4),
        "goes on": FakeSession(machine, "goes on", 2.0),
    }
    done = compare(sessions, HELLO, 8, machine.clock)
    ends, on = done.runs["ends"], done.runs["goes on"]
    assert (ends.predicted, ends.tokens, ends.finish) == (4, (0, 1, 2), FinishReason.STOP)
    assert (on.predicted, on.finish) == (8, FinishReason.LENGTH)
    assert (ends.speed, on.speed) == (1.0, 0.5)
    assert done.divergence("ends", "goes on") == 3


def test_an_answer_that_ends_at_once_has_no_speed() -> None:
    machine = Machine()
    sessions = {"a": FakeSession(machine, "a", 1.0, end=1), "b": FakeSession(machine, "b", 1.0)}
    done = compare(sessions, HELLO, 5, machine.clock)
    assert done.runs["a"].predicted == 1
    assert done.runs["a"].speed is None


def test_an_error_ends_all_answers() -> None:
    machine = Machine()
    sessions = {"a": FakeSession(machine, "a", 1.0), "b": FakeSession(machine, "b", 1.0, failure=3)}
    with pytest.raises(DecodeError, match="broke"):
        compare(sessions, HELLO, 9, machine.clock)
    assert sessions["a"].closed == sessions["b"].closed == 1
    assert sessions["a"].stats.predicted_tokens < 9


class EngineSession:
    """A session around a real engine on a fake model."""

    def __init__(self, speculation: SpeculationSettings, drafters: Sequence[object]) -> None:
        main = FakeBackend(bias={0: -2.0})
        self.engine = Engine(main, FakeVocabulary(main.vocab_size), drafters)
        self.speculation = speculation
        self.stats = Stats()
        self.finish_reason: FinishReason | None = None

    def chat(self, prompt: str, *, settings: Mapping[str, Mapping[str, object]]) -> Generator[TextEvent]:
        self.stats = Stats()
        request = Request(PROMPT, SamplingSettings(**settings["sampling"]), self.speculation)
        for event in self.engine.generate(request, self.stats):
            if isinstance(event, FinishEvent):
                self.finish_reason = event.reason
            elif isinstance(event, TextEvent):
                yield event


def test_real_engines_give_the_same_text_in_turns() -> None:
    text = [*PROMPT, *plain().tokens]
    sessions = {
        "plain": EngineSession(SpeculationSettings(mode="off"), []),
        "drafts": EngineSession(
            SpeculationSettings(mode="fixed", draft_max=4, p_min=0.0),
            [follows(text, lambda place: place % 3 == 0)],
        ),
    }
    done = compare(sessions, HELLO, 24)
    assert done.divergence("drafts", "plain") is None
    assert done.runs["plain"].tokens == tuple(plain().tokens[:24])
    assert done.runs["plain"].drafted == 0
    assert 0 < done.runs["drafts"].accepted < done.runs["drafts"].drafted
    assert done.runs["drafts"].rounds < done.runs["plain"].rounds
    assert not any(session.engine.busy for session in sessions.values())


def opener(sessions: Mapping[str, FakeSession]) -> Callable[[Mapping], AbstractContextManager[FakeSession]]:
    def open_one(overrides: Mapping[str, Mapping[str, object]]) -> FakeSession:
        name = str(overrides["speculation"]["mode"])
        if name not in sessions:
            raise OutOfMemoryError("This needs 9 GiB.", "Try less.")
        return sessions[name]

    return open_one


def test_sessions_are_opened_warmed_up_and_closed() -> None:
    machine, log = Machine(), list[str]()
    fakes = {name: FakeSession(machine, name, 1.0, end=2, log=log) for name in ("off", "fixed")}
    wanted = {"plain": {"speculation": {"mode": "off"}}, "other": {"speculation": {"mode": "fixed"}}}
    with open_sessions(wanted, opener(fakes)) as opened:
        assert opened == {"plain": fakes["off"], "other": fakes["fixed"]}
        assert [session.asked[0][0] for session in opened.values()] == [WARM_UP] * 2
    assert log == ["off", "off", "fixed", "fixed", "closed fixed", "closed off"]


def test_what_does_not_fit_is_said_and_the_rest_closed() -> None:
    machine, log = Machine(), list[str]()
    fakes = {"off": FakeSession(machine, "off", 1.0, end=1, log=log)}
    wanted = {"plain": {"speculation": {"mode": "off"}}, "other": {"speculation": {"mode": "fixed"}}}
    with (
        pytest.raises(
            OutOfMemoryError, match=r"Only 1 of 2 settings .* For other: This needs 9 GiB"
        ) as caught,
        open_sessions(wanted, opener(fakes)),
    ):
        pytest.fail("opened")
    assert "fewer" in caught.value.hint
    assert log[-1] == "closed off"


@pytest.mark.parametrize(
    ("one", "other", "place"),
    [((1, 2), (1, 2), None), ((), (), None), ((1, 2), (1, 3), 1), ((1,), (1, 2), 1), ((4,), (5,), 0)],
)
def test_first_difference(one: tuple[int, ...], other: tuple[int, ...], place: int | None) -> None:
    assert first_difference(one, other) == first_difference(other, one) == place


def test_a_run_tells_when_its_tokens_came_and_how_wide_its_rounds_were() -> None:
    machine = Machine()
    session = FakeSession(machine, "a", 2.0, width=3, prompt_work=5.0)
    run = compare({"a": session}, HELLO, 8, machine.clock).runs["a"]
    assert run.times == (0.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 6.0)
    assert run.joules is None


def test_energy_is_that_of_the_own_turns() -> None:
    machine = Machine()
    sessions = {"a": FakeSession(machine, "a", 2.0), "b": FakeSession(machine, "b", 3.0, width=4)}
    runs = compare(sessions, HELLO, 5, machine.clock, energy=lambda: 10.0 * machine.now).runs
    assert (runs["a"].joules, runs["b"].joules) == (80.0, 30.0)


def test_who_asks_to_stop_ends_it_between_two_turns() -> None:
    machine, log = Machine(), list[str]()
    sessions = {name: FakeSession(machine, name, 1.0, log=log) for name in ("a", "b")}
    with pytest.raises(KeyboardInterrupt):
        compare(sessions, HELLO, 9, machine.clock, should_stop=lambda: len(log) == 5)
    assert len(log) == 5
    assert sessions["a"].closed == sessions["b"].closed == 1
