"""From the requests of a benchmark of a server to what they came to, and what to think of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from llamaspec.bench.latency import latency
from llamaspec.bench.remote_report import Failure, Level, RequestRecord
from llamaspec.bench.report import Finding
from llamaspec.bench.streaming import gaps
from llamaspec.figures import FEWEST, figure, ratio

MOST_MESSAGES = 5
FEW_REQUESTS = 20
"""Under which the 95th percentile is the slowest request."""
NOISY = 0.1
"""Spread of a level's rounds, relative to its throughput, over which nothing is concluded."""


def levels(requests: Sequence[RequestRecord]) -> tuple[Level, ...]:
    """One for each number of clients, the fewest first, to which the others are related."""
    by_clients: dict[int, list[RequestRecord]] = {}
    for request in sorted(requests, key=lambda request: request.clients):
        by_clients.setdefault(request.clients, []).append(request)
    speeds = {clients: round_speeds(of_level) for clients, of_level in by_clients.items()}
    first = next(iter(speeds.values()), {})
    found = []
    for clients, of_level in by_clients.items():
        rounds = speeds[clients]
        paired = [rounds[i] / first[i] for i in rounds if first.get(i) and rounds[i]]
        found.append(_level(clients, of_level, rounds, [] if rounds is first else paired))
    return tuple(found)


def round_speeds(requests: Iterable[RequestRecord]) -> dict[int, float]:
    """Tokens per second in each round of a level: of all answers, from the first request to the last end."""
    rounds: dict[int, list[RequestRecord]] = {}
    for request in requests:
        rounds.setdefault(request.round, []).append(request)
    return {
        number: sum(r.tokens for r in of_round) / seconds
        for number, of_round in rounds.items()
        if (seconds := max(r.sent + r.seconds for r in of_round) - min(r.sent for r in of_round)) > 0
    }


def findings(levels: Sequence[Level], rounds: int) -> Iterator[Finding]:
    """What makes these figures less sure; with `rounds` of each level."""
    for level in levels:
        at = so_many_clients(level.clients)
        for failure in level.failures:
            yield Finding(
                problem=f"With {at} {failure.count} of {level.requests} requests failed: {failure.kind}.",
                remedy="Read the messages above and the server's log: the figures are of the other requests.",
            )
        if is_noisy(level):
            yield Finding(
                problem=f"With {at} the rounds differ too much: {level.throughput} tokens/s.",
                remedy="End other programs on the server's machine, or measure more rounds with --repeat.",
            )
        if level.first_token and level.per_token is None and level.tokens > level.requests:
            yield Finding(
                problem=f"With {at} each answer came in one piece: there is no time from token to token.",
                remedy="Look for a proxy between that gathers the stream.",
            )
    if rounds < FEWEST:
        yield Finding(
            problem=f"Each number of clients was measured {'once' if rounds == 1 else f'{rounds} times'}: "
            "how sure the figures are is not known.",
            remedy=f"Use --repeat {FEWEST} or more.",
        )
    if levels and (fewest := min(level.requests - level.failed for level in levels)) < FEW_REQUESTS:
        yield Finding(
            problem=f"There are levels with {fewest} answers: their high percentiles are single requests.",
            remedy="Ask more prompts, or use --repeat.",
        )


def is_noisy(level: Level) -> bool:
    speed = level.throughput
    return speed is not None and speed.spread > NOISY * speed.value


def so_many_clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def _level(
    clients: int, requests: Sequence[RequestRecord], speeds: Mapping[int, float], paired: Sequence[float]
) -> Level:
    answered = [request for request in requests if request.failure is None]
    per_token: dict[str, list[float]] = {}
    for request in answered:
        if (each := _per_token(request)) is not None:
            per_token.setdefault(request.prompt, []).append(each)
    pieces = sum(len(request.times) for request in answered)
    tokens = sum(request.tokens for request in answered)
    drafted, accepted = (_known(answered, name) for name in ("drafted", "accepted"))
    return Level(
        clients=clients,
        requests=len(requests),
        failures=tuple(_failures(requests)),
        tokens=tokens,
        prompt_tokens=_known(answered, "prompt_tokens"),
        cached_tokens=_known(answered, "cached_tokens"),
        throughput=figure({"": list(speeds.values())}) if answered else None,
        relative=ratio({"": paired}),
        stream_speed=figure(
            {prompt: [1 / each for each in several] for prompt, several in per_token.items()}
        ),
        first_token=latency([request.times[0] for request in answered if request.times]),
        gap=latency([gap for request in answered for gap in gaps(request.times)]),
        per_token=latency([each for several in per_token.values() for each in several]),
        whole=latency([request.seconds for request in answered]),
        tokens_per_piece=tokens / pieces if pieces else None,
        drafted=drafted,
        accepted=accepted,
        acceptance_rate=min(1.0, accepted / drafted) if drafted and accepted is not None else None,
    )


def _failures(requests: Iterable[RequestRecord]) -> Iterator[Failure]:
    """The most frequent first, with the first of their different messages."""
    by_kind: dict[str, list[str]] = {}
    for request in requests:
        if request.failure is not None:
            by_kind.setdefault(request.failure, []).append(request.message or "")
    for kind, told in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        messages = tuple(dict.fromkeys(told))[:MOST_MESSAGES]
        yield Failure(kind=kind, count=len(told), messages=messages)


def _per_token(request: RequestRecord) -> float | None:
    """An answer's time behind its first piece, for each token in it: of that piece one is taken off."""
    if len(request.times) < 2 or request.tokens < 2:
        return None
    seconds = request.times[-1] - request.times[0]
    return seconds / (request.tokens - 1) if seconds > 0 else None


def _known(requests: Iterable[RequestRecord], name: str) -> int | None:
    """The sum of what the server told; None where it told nothing."""
    told = [value for request in requests if (value := getattr(request, name)) is not None]
    return sum(told) if told else None
