"""Settings measured against each other while they all answer the same prompt at the same time.

A machine's speed drifts by a fifth within seconds, so that runs one after the other compare the machine
with itself as much as the settings. Here every setting has a session of its own, and all of them answer
in turns of one engine round; only the time of its own turns counts for a setting.

The next turn goes to whoever has emitted the fewest tokens, and among equals to whoever has waited
longest. All thus get through the answer side by side: the same stretch of text, at the same depth of
context, in the same seconds. Were turns shared out by time, the fast ones would reach the end while the
slow ones were half-way, and these would do the rest, at greater depth, on the machine as it is later.
It also follows that nobody generates before all have read the prompt.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol, TypeVar

from llamaspec.bench.workload import Prompt
from llamaspec.errors import OutOfMemoryError
from llamaspec.events import FinishReason, TextEvent
from llamaspec.session import Session
from llamaspec.stats import Stats

Overrides = Mapping[str, Mapping[str, object]]
"""Settings over a profile's: by section and key."""

Energy = Callable[[], float]
"""Joules that the machine has used so far."""

_T = TypeVar("_T")

WARM_UP = "Count from one to twelve."


class Answering(Protocol):
    """What is asked of a session; `Session` has it. `stats` are those of the answer that runs, from its first
    event on."""

    @property
    def stats(self) -> Stats: ...
    @property
    def finish_reason(self) -> FinishReason | None: ...
    def chat(self, prompt: str, *, settings: Overrides) -> Generator[TextEvent]: ...


@dataclass(frozen=True, slots=True)
class Run:
    """One answer under one setting. Times are in seconds, and of its own turns alone.

    `prompt_seconds` go up to the first text, `seconds` are all later turns; `timed_tokens` are the tokens
    that came in those. A draft model reads the prompt after the first token: that is generation time.
    `predicted` counts the token that ends the answer too; `tokens` are the ids that have text. `times` are
    those of the tokens, from the end of the prompt on. `widths`, `drafted_at` and `accepted_at` are as in
    `Stats`. `joules` go with `seconds`; None where nothing counts them.
    """

    predicted: int
    timed_tokens: int
    seconds: float
    prompt_tokens: int
    prompt_seconds: float
    rounds: int
    drafted: int
    accepted: int
    finish: FinishReason | None
    tokens: tuple[int, ...]
    times: tuple[float, ...] = ()
    widths: Mapping[int, int] = field(default_factory=dict)
    drafted_at: tuple[int, ...] = ()
    accepted_at: tuple[int, ...] = ()
    joules: float | None = None

    @property
    def speed(self) -> float | None:
        """Tokens per second of generation; None for an answer that ended at once."""
        return self.timed_tokens / self.seconds if self.timed_tokens and self.seconds else None


@dataclass(frozen=True, slots=True)
class Trial:
    """One prompt, answered once under every setting."""

    prompt: str
    kind: str
    runs: Mapping[str, Run]

    def divergence(self, setting: str, baseline: str) -> int | None:
        """The place of the first token that differs; None where the texts are the same."""
        return first_difference(self.runs[setting].tokens, self.runs[baseline].tokens)


@dataclass(slots=True)
class Lane:
    """One setting on its way through an answer. `last_turn` numbers the turns of all lanes, from 1."""

    events: Iterator[TextEvent]
    session: Answering
    last_turn: int = 0
    predicted: int = 0
    first_tokens: int = 0
    prompt_seconds: float = 0.0
    seconds: float = 0.0
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    joules: float | None = None
    done: bool = False

    def advance(self, number: int, clock: Callable[[], float], energy: Energy | None = None) -> None:
        """Take turn `number`: up to the next text, which is one engine round where that gives any.

        A round that gives several pieces of text hands out the rest of them in later turns, which take
        no time.
        """
        used = energy() if energy else 0.0
        started = clock()
        event = next(self.events, None)
        elapsed = clock() - started
        first = self.last_turn == 0
        self.last_turn = number
        self.predicted = self.session.stats.predicted_tokens
        if first:
            self.prompt_seconds, self.first_tokens = elapsed, self.predicted
        else:
            self.seconds += elapsed
            if energy:
                self.joules = (self.joules or 0.0) + energy() - used
        self.times += [self.seconds] * (self.predicted - len(self.times))
        if event is None:
            self.done = True
        else:
            self.tokens += event.tokens

    def run(self) -> Run:
        stats = self.session.stats
        return Run(
            predicted=self.predicted,
            timed_tokens=self.predicted - self.first_tokens,
            seconds=self.seconds,
            prompt_tokens=stats.prompt_tokens,
            prompt_seconds=self.prompt_seconds,
            rounds=stats.rounds,
            drafted=stats.draft_n,
            accepted=stats.draft_n_accepted,
            finish=self.session.finish_reason,
            tokens=tuple(self.tokens),
            times=tuple(self.times),
            widths=dict(stats.widths),
            drafted_at=tuple(stats.drafted_at),
            accepted_at=tuple(stats.accepted_at),
            joules=self.joules,
        )


def next_lane(lanes: Iterable[Lane]) -> Lane | None:
    """Whose turn it is: of those not done the least far, and of these the one that has waited longest."""
    going = (lane for lane in lanes if not lane.done)
    return min(going, key=lambda lane: (lane.predicted, lane.last_turn), default=None)


def greedy(n_predict: int) -> Overrides:
    """Settings under which answers can be compared: no chance, at most `n_predict` tokens."""
    return {"sampling": {"temperature": 0.0, "n_predict": n_predict, "ignore_eos": False}}


def rotated(ordered: Sequence[_T], number: int) -> list[_T]:
    """The order of round `number`, counted from 0: each begins with the next one."""
    start = number % len(ordered)
    return [*ordered[start:], *ordered[:start]]


def compare(
    sessions: Mapping[str, Answering],
    prompt: Prompt,
    n_predict: int,
    clock: Callable[[], float] = time.perf_counter,
    *,
    number: int = 0,
    energy: Energy | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Trial:
    """Answer `prompt` with all sessions in turns, greedily, with at most `n_predict` tokens each.

    `number` counts trials: another session begins each time, as whoever does reads on a rested machine.
    An error of one session is raised, and ends the answers of all; so does `should_stop`, which is asked
    before every turn, with a KeyboardInterrupt.
    """
    settings = greedy(prompt.limit(n_predict))
    with ExitStack() as stack:
        lanes = {
            name: Lane(
                stack.enter_context(closing(sessions[name].chat(prompt.prompt, settings=settings))),
                sessions[name],
            )
            for name in rotated(list(sessions), number)
        }
        turn = 0
        while (lane := next_lane(lanes.values())) is not None:
            if should_stop():
                raise KeyboardInterrupt
            turn += 1
            lane.advance(turn, clock, energy)
        return Trial(prompt.name, prompt.kind, {name: lanes[name].run() for name in sessions})


@contextmanager
def open_sessions(
    settings: Mapping[str, Overrides], open_one: Callable[[Overrides], Session]
) -> Iterator[dict[str, Session]]:
    """A loaded session for each of `settings`, by name; all are closed at the end.

    Each answers a few tokens before the next one is loaded: what is done once is done, and the memory it
    really takes is taken when it is checked whether the next one fits. Raises what `open_one` does, an
    OutOfMemoryError with the number of settings that did fit.
    """
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for name, overrides in settings.items():
            try:
                session = stack.enter_context(open_one(overrides))
            except OutOfMemoryError as error:
                raise OutOfMemoryError(
                    f"Only {len(sessions)} of {len(settings)} settings fit in memory side by side. "
                    f"For {name}: {error.message}",
                    "Compare fewer settings at a time, or with a smaller context.",
                ) from error
            for _ in session.chat(WARM_UP, settings=greedy(8)):
                pass
            sessions[name] = session
        yield sessions


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place where two texts differ, an end counting as a difference; None if they are the same."""
    for place, (ours, theirs) in enumerate(zip_longest(one, other)):
        if ours != theirs:
            return place
    return None
