"""A race of sessions: how many are loaded at a time, who makes room, and what happens when one fails."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

import pytest

from llamaspec.bench.tuning.candidates import Candidate
from llamaspec.bench.tuning.live import MOST, LiveRace
from llamaspec.bench.workload import Prompt
from llamaspec.errors import DecodeError, OutOfMemoryError
from llamaspec.events import FinishReason, TextEvent
from llamaspec.session import Session
from llamaspec.stats import Stats

PROMPT = Prompt(name="hello", kind="chat", prompt="Hello?")
DEFAULT = Candidate()
GIB = 1 << 30


def change(name: str) -> Candidate:
    return Candidate(name, {"runtime": {"threads": len(name)}})


A, BB, CCC = change("a"), change("bb"), change("ccc")


@dataclass
class FakeSession:
    """Answers with as many tokens as are asked for; breaks when it is asked `PROMPT`, if it is to."""

    place: "Memory"
    name: str
    breaks: bool = False
    stats: Stats = field(default_factory=Stats)
    finish_reason: FinishReason | None = None

    def chat(self, prompt: str, *, settings: Mapping[str, Mapping[str, object]]) -> Generator[TextEvent]:
        self.stats = Stats(prompt_tokens=3)
        self.place.begun += [self.name] if prompt == PROMPT.prompt else []
        for token in range(int(str(settings["sampling"]["n_predict"]))):
            if self.breaks and prompt == PROMPT.prompt:
                raise DecodeError("It broke.")
            self.stats.predicted_tokens += 1
            yield TextEvent(0, "x", (token,), False)

    def close(self) -> None:
        self.place.loaded -= 1


@dataclass
class Memory:
    """Each session takes `each` bytes of `free`."""

    each: int = GIB
    free: int = 100 * GIB
    broken: tuple[Candidate, ...] = ()
    too_large: tuple[Candidate, ...] = ()
    loaded: int = 0
    most: int = 0
    opened: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    def left(self) -> dict[str, int]:
        return {"host": self.free - self.loaded * self.each}

    def open(self, candidate: Candidate) -> Session:
        if candidate in self.too_large:
            raise OutOfMemoryError("There is no room.")
        self.loaded += 1
        self.most = max(self.most, self.loaded)
        self.opened.append(candidate.name)
        return FakeSession(self, candidate.name, candidate in self.broken)  # type: ignore[return-value]


def race(memory: Memory, **more: int) -> LiveRace:
    return LiveRace(memory.open, DEFAULT, memory.left, **more)


@pytest.mark.parametrize(
    ("free", "capacity"), [(100, MOST), (4, 3), (3, 2), (2, 1), (1, 1)], ids=lambda value: f"{value}"
)
def test_the_capacity_is_what_fits(free: int, capacity: int) -> None:
    with race(Memory(free=free * GIB)) as live:
        assert live.capacity == capacity


def test_weights_that_take_no_memory_are_no_limit() -> None:
    with race(Memory(each=1000)) as live:
        assert live.capacity == MOST
    with race(Memory(), most=2) as live:
        assert live.capacity == 2


def test_sessions_stay_while_there_is_room_and_are_freed_at_the_end() -> None:
    memory = Memory(free=4 * GIB)
    with race(memory) as live:
        for field_ in ((DEFAULT, A), (DEFAULT, BB), (DEFAULT, A), (DEFAULT, CCC)):
            heat = live(field_, PROMPT, 4)
            assert heat.samples.keys() == {one.key for one in field_} and not heat.failed
        assert live.spent > 0.0
    assert memory.opened == ["default", "a", "bb", "ccc"]
    assert (memory.loaded, memory.most) == (0, 3)


def test_more_than_fit_race_one_by_one_and_who_is_loaded_begins() -> None:
    memory = Memory(free=2 * GIB)
    with race(memory) as live:
        heats = [live((DEFAULT, A), PROMPT, 4) for _ in range(2)]
    assert all(heat.samples.keys() == {DEFAULT.key, A.key} for heat in heats)
    assert memory.most == 1 and memory.opened == ["default", "a", "default"]


def test_everyone_begins_in_turn() -> None:
    memory = Memory()
    with race(memory) as live:
        for _ in range(3):
            live((DEFAULT, A, BB), PROMPT, 4)
    assert [memory.begun[place] for place in (0, 3, 6)] == ["a", "bb", "default"]


def test_who_can_not_be_loaded_is_told() -> None:
    with race(Memory(too_large=(A,))) as live:
        heat = live((DEFAULT, A, BB), PROMPT, 4)
    assert heat.failed == {A.key: "There is no room."}
    assert heat.samples.keys() == {DEFAULT.key, BB.key}


def test_who_breaks_is_found_out() -> None:
    with race(Memory(broken=(BB,))) as live:
        heat = live((DEFAULT, A, BB), PROMPT, 4)
    assert heat.failed == {BB.key: "It broke."}
    assert heat.samples.keys() == {DEFAULT.key, A.key}


@pytest.mark.parametrize("memory", [Memory(too_large=(DEFAULT,)), Memory(broken=(DEFAULT,))])
def test_errors_of_the_first_are_raised(memory: Memory) -> None:
    with race(memory) as live, pytest.raises((OutOfMemoryError, DecodeError)):
        live((DEFAULT, A), PROMPT, 4)
    assert memory.loaded == 0


def test_ctrl_c_ends_it_and_frees_everything() -> None:
    memory = Memory()
    live = LiveRace(memory.open, DEFAULT, memory.left, lambda: True)
    with live, pytest.raises(KeyboardInterrupt):
        live((DEFAULT, A), PROMPT, 4)
    assert memory.loaded == 0
