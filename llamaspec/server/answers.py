"""What all answers tell: usage, timings, and who drafted which token.

`streaming` has what they have in common on their way: starting, merging, server-sent events, clients that
go away.
"""

import math
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from itertools import zip_longest
from typing import Any, Protocol

import llamaspec
from llamaspec.decode.sequence import Request
from llamaspec.events import TokenDetail
from llamaspec.stats import DrafterStats, Stats, ratio

_SUMMED = (
    "prompt_tokens",
    "cached_tokens",
    "prompt_seconds",
    "predicted_tokens",
    "predicted_seconds",
    "rounds",
    "plain_tokens",
    "plain_seconds",
)


class Run(Protocol):
    """A request and what it has come to so far: a `Ticket`."""

    @property
    def request(self) -> Request: ...

    @property
    def stats(self) -> Stats: ...


class Vocabulary(Protocol):
    """How tokens are written."""

    def piece(self, token: int) -> bytes: ...

    def special_text(self, token: int | None) -> str: ...


@cache
def fingerprint() -> str:
    """What OpenAI calls `system_fingerprint`: another build may answer otherwise to the same seed."""
    return f"b{version('llama-cpp-python')}-llamaspec-{llamaspec.__version__}"


def usage(prompts: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """OpenAI's `usage`: for each prompt the runs of its choices. A prompt counts once, its choices all."""
    asked = sum(len(runs[0].request.prompt) for runs in prompts)
    stats = [run.stats for runs in prompts for run in runs]
    predicted = sum(each.predicted_tokens for each in stats)
    accepted = sum(each.draft_n_accepted for each in stats)
    return {
        "prompt_tokens": asked,
        "completion_tokens": predicted,
        "total_tokens": asked + predicted,
        "prompt_tokens_details": {"cached_tokens": sum(runs[0].stats.cached_tokens for runs in prompts)},
        "completion_tokens_details": {
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": sum(each.draft_n for each in stats) - accepted,
        },
    }


def timings(*stats: Stats) -> dict[str, Any]:
    """llama-server's `timings` and ours; of several choices their sum. Ratios of nothing are null."""
    total = stats[0] if len(stats) == 1 else _sum(stats)
    read = total.prompt_tokens - total.cached_tokens
    return {
        "cache_n": total.cached_tokens,
        "prompt_n": read,
        **_pace("prompt", read, total.prompt_seconds),
        "predicted_n": total.predicted_tokens,
        **_pace("predicted", total.predicted_tokens, total.predicted_seconds),
        "draft_n": total.draft_n,
        "draft_n_accepted": total.draft_n_accepted,
        "draft_acceptance_per_position": total.acceptance_per_position,
        "mean_accepted_length": total.mean_accepted_length,
        "drafters": {name: counted.as_dict() for name, counted in total.drafters.items()},
        "rounds": total.rounds,
        "queue_ms": total.queue_seconds * 1e3,
        "time_to_first_token_ms": None if (first := total.time_to_first_token) is None else first * 1e3,
        "estimated_speedup": total.estimated_speedup,
    }


def token_details(details: Sequence[TokenDetail], vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Of each token who drafted it, in which round it came, and how probable it was (null: not asked)."""
    return [
        {
            "id": detail.token,
            "text": token_bytes(vocabulary, detail.token).decode("utf-8", "replace"),
            "drafter": detail.source or None,
            "round": detail.round,
            "probability": None if detail.logprob is None else math.exp(detail.logprob),
        }
        for detail in details
    ]


def token_bytes(vocabulary: Vocabulary, token: int) -> bytes:
    """What a token is written as; of a control token, which adds nothing to a text, its name."""
    return vocabulary.piece(token) or vocabulary.special_text(token).encode()


def _pace(what: str, tokens: int, seconds: float) -> dict[str, float | None]:
    return {
        f"{what}_ms": seconds * 1e3,
        f"{what}_per_token_ms": ratio(seconds * 1e3, tokens),
        f"{what}_per_second": ratio(tokens, seconds),
    }


def _sum(stats: Sequence[Stats]) -> Stats:
    """The counts of several runs as those of one, which waited as long as the one that waited least."""
    firsts = [each.time_to_first_token for each in stats if each.time_to_first_token is not None]
    total = Stats(
        queue_seconds=min(each.queue_seconds for each in stats),
        time_to_first_token=min(firsts, default=None),
        drafted_at=[sum(column) for column in zip_longest(*(s.drafted_at for s in stats), fillvalue=0)],
        accepted_at=[sum(column) for column in zip_longest(*(s.accepted_at for s in stats), fillvalue=0)],
    )
    for name in _SUMMED:
        setattr(total, name, sum(getattr(each, name) for each in stats))
    for each in stats:
        for name, counted in each.drafters.items():
            drafter = total.drafters.setdefault(name, DrafterStats())
            drafter.record(counted.drafted, counted.accepted)
            drafter.rounds += counted.rounds
            drafter.seconds += counted.seconds
    return total
