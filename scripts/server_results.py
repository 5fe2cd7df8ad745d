"""What was measured of servers, and what it says: figures of a round, medians and ratios over rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from server_load import Stall, percentile

from llamaspec.bench.report import BUSY
from llamaspec.bench.streaming import Answer
from llamaspec.errors import ServerError

SPEED = "tokens_per_second"
STALL = "stall"


@dataclass(frozen=True, slots=True)
class Load:
    """Answers to so many clients, in one round of one subject.

    `others` is what programs that are no part of the benchmark used of the machine, 0 to 1.
    """

    subject: str
    round: int
    clients: int
    answers: tuple[Answer, ...]
    others: float

    @property
    def test(self) -> str:
        return f"{self.clients} client{'s' if self.clients > 1 else ''}"

    @property
    def prompt_tokens(self) -> tuple[int | None, ...]:
        return tuple(answer.prompt_tokens for answer in self.answers)

    @property
    def speed(self) -> float:
        """Tokens per second: of all answers, from the first request to the end of the last answer."""
        seconds = max(a.ended for a in self.answers) - min(a.sent for a in self.answers)
        return sum(answer.tokens for answer in self.answers) / seconds

    @property
    def busy(self) -> bool:
        return self.others > BUSY

    @property
    def figures(self) -> dict[str, float | None]:
        """Tokens per second of all, times in seconds, and what was drafted."""
        waits = [wait for a in self.answers if (wait := a.first_token_seconds) is not None]
        between = [gap for answer in self.answers for gap in answer.gaps]
        return {
            SPEED: self.speed,
            "first_token_p50": percentile(waits, 50),
            "first_token_p95": percentile(waits, 95),
            "gap_p50": percentile(between, 50),
            "gap_p95": percentile(between, 95),
            "drafted": sum(answer.drafted or 0 for answer in self.answers),
            "accepted": sum(answer.accepted or 0 for answer in self.answers),
        }


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A stream that a long prompt disturbed, in one round of one subject; `others` as for a load."""

    subject: str
    round: int
    stall: Stall
    others: float

    @property
    def test(self) -> str:
        return STALL

    @property
    def prompt_tokens(self) -> tuple[int | None, ...]:
        return tuple(a.prompt_tokens for a in (self.stall.quiet, self.stall.disturbed, self.stall.long))

    @property
    def busy(self) -> bool:
        return self.others > BUSY

    @property
    def figures(self) -> dict[str, float | None]:
        """Times in seconds. `slowdown`: how many times its usual the stream's p95 gap was."""
        quiet, disturbed = (percentile(g, 95) for g in (self.stall.quiet_gaps, self.stall.disturbed_gaps))
        return {
            "quiet_gap_p95": quiet,
            "disturbed_gap_p95": disturbed,
            "slowdown": disturbed / quiet if disturbed and quiet else None,
            "longest_gap": max(self.stall.disturbed_gaps, default=None),
            "gaps_seen": len(self.stall.disturbed_gaps),
            "long_first_token": self.stall.long.first_token_seconds,
        }


Measured = Load | Disturbance


def check_prompts(measured: Sequence[Measured]) -> None:
    """Raises ServerError where the last one has read other prompts than the others of its round."""
    last = measured[-1]
    same = [one for one in measured if (one.test, one.round) == (last.test, last.round)]
    lengths = {one.subject: one.prompt_tokens for one in same}
    if len(set(lengths.values())) > 1:
        totals = {name: sum(filter(None, tokens)) for name, tokens in lengths.items()}
        raise ServerError(f"The servers did not read the same prompts; their tokens are {totals}.")


def by_subject(measured: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Of each subject what was measured, in the order of the rounds."""
    found: dict[str, list[Measured]] = {}
    for one in measured:
        found.setdefault(one.subject, []).append(one)
    return found


def middle(measured: Sequence[Measured]) -> dict[str, float | None]:
    """Of one subject the medians of its figures over the rounds; None for a figure that no round has."""
    found = {key: known(measured, key) for key in measured[0].figures}
    return {key: median(values) if values else None for key, values in found.items()}


def known(measured: Sequence[Measured], key: str) -> list[float]:
    """A figure of every round that has it."""
    return [value for one in measured if (value := one.figures[key]) is not None]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast: by the medians, and median, lowest and highest of the rounds' ratios."""

    of_medians: float
    median: float
    lowest: float
    highest: float


def ratio(of: Mapping[int, float], to: Mapping[int, float]) -> Ratio | None:
    """Of tokens per second by round; None where they have no round in common."""
    both = [number for number in of if number in to]
    if not both:
        return None
    rounds = [of[number] / to[number] for number in both]
    of_medians = median(of[number] for number in both) / median(to[number] for number in both)
    return Ratio(of_medians, median(rounds), min(rounds), max(rounds))


def summary(measured: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    """By test and subject: the medians of the figures, how many rounds were busy, the ratios of speeds."""
    tests = dict.fromkeys(one.test for one in measured)
    return {test: _summary_of([one for one in measured if one.test == test]) for test in tests}


def _summary_of(measured: Sequence[Measured]) -> dict[str, Any]:
    found = by_subject(measured)
    subjects = {name: middle(done) | {"busy": sum(o.busy for o in done)} for name, done in found.items()}
    speed = {name: {o.round: o.speed for o in done if isinstance(o, Load)} for name, done in found.items()}
    ratios = {a: {b: asdict(r) for b in speed if b != a and (r := ratio(speed[a], speed[b]))} for a in speed}
    return {"subjects": subjects, "ratios": ratios}


def record(one: Measured) -> dict[str, Any]:
    """All of it, for JSON. Of a load's answers the times of single tokens are left out."""
    about = {"test": one.test, "subject": one.subject, "round": one.round, "others": one.others}
    about |= {"busy": one.busy, **one.figures}
    if isinstance(one, Disturbance):
        return about | {"covered": one.stall.covered, "stall": asdict(one.stall)}
    return about | {"answers": [_short(answer) for answer in one.answers]}


def _short(answer: Answer) -> dict[str, Any]:
    whole = asdict(answer)
    pieces = len(whole.pop("arrivals"))
    return whole | {"pieces": pieces, "first_token_seconds": answer.first_token_seconds}
