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
from llamaspec.events import ProgressEvent, TokenDetail
from llamaspec.server.fields import GenerationBody
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
    """OpenAI's `usage`: for each prompt the runs of its choices. A prompt counts once, its choices all.

    It holds whole numbers alone: clients add them up over requests.
    """
    asked = sum(len(runs[0].request.prompt) for runs in prompts)
    total = _sum([run.stats for runs in prompts for run in runs])
    return {
        "prompt_tokens": asked,
        "completion_tokens": total.predicted_tokens,
        "total_tokens": asked + total.predicted_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(runs[0].stats.cached_tokens for runs in prompts)},
        "completion_tokens_details": {
            "accepted_prediction_tokens": total.draft_n_accepted,
            "rejected_prediction_tokens": total.draft_n - total.draft_n_accepted,
        },
    }


def cost(runs: Sequence[Run]) -> dict[str, Any]:
    """What every answer tells of its cost: `timings` and `speculation`, over all its runs."""
    total = _sum([run.stats for run in runs])
    return {"timings": timings(total), "speculation": speculation(runs[0].request.speculation.mode, total)}


def timings(stats: Stats) -> dict[str, float]:
    """llama-server's `timings` and ours: numbers alone, 0 for ratios of nothing.

    What is not known, the time to a first token that has not come and the speedup, is left out.
    """
    read = stats.prompt_tokens - stats.cached_tokens
    known = {
        "time_to_first_token_ms": stats.time_to_first_token and stats.time_to_first_token * 1e3,
        "estimated_speedup": stats.estimated_speedup,
    }
    return {
        "cache_n": stats.cached_tokens,
        "prompt_n": read,
        **_pace("prompt", read, stats.prompt_seconds),
        "predicted_n": stats.predicted_tokens,
        **_pace("predicted", stats.later_tokens, stats.predicted_seconds),
        "draft_n": stats.draft_n,
        "draft_n_accepted": stats.draft_n_accepted,
        "mean_accepted_length": stats.mean_accepted_length or 0.0,
        "rounds": stats.rounds,
        "queue_ms": stats.queue_seconds * 1e3,
        **{name: value for name, value in known.items() if value is not None},
    }


def progress(event: ProgressEvent, body: GenerationBody) -> dict[str, Any]:
    """llama-server's `prompt_progress`, with the timings of that moment where every chunk has some."""
    told: dict[str, Any] = {
        "prompt_progress": {
            "total": event.total,
            "cache": event.cached,
            "processed": event.processed,
            "time_ms": event.seconds * 1e3,
        }
    }
    if body.timings_per_token:
        so_far = Stats(
            prompt_tokens=event.processed, cached_tokens=event.cached, prompt_seconds=event.seconds
        )
        told["timings"] = timings(so_far)
    return told


def verbose(run: Run, vocabulary: Vocabulary) -> dict[str, Any]:
    """llama-server's `__verbose`: what the model was really asked, and by which settings."""
    request, stats = run.request, run.stats
    return {
        "prompt": text_of_tokens(request.prompt, vocabulary),
        "tokens_evaluated": len(request.prompt),
        "tokens_predicted": stats.predicted_tokens,
        "generation_settings": {
            **request.sampling.model_dump(),
            "speculation": request.speculation.model_dump(exclude={"corpus"}),  # a path of the host
        },
    }


def speculation(mode: str, stats: Stats) -> dict[str, Any]:
    """What drafts came to; ratios of nothing are null."""
    return {
        "mode": mode,
        "drafters": {name: counted.as_dict() for name, counted in stats.drafters.items()},
        "acceptance_per_position": stats.acceptance_per_position,
        "mean_accepted_length": stats.mean_accepted_length,
        "estimated_speedup": stats.estimated_speedup,
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


def text_of_tokens(tokens: Sequence[int], vocabulary: Vocabulary) -> str:
    """What tokens are written as, control tokens by their names."""
    return b"".join(token_bytes(vocabulary, token) for token in tokens).decode("utf-8", "replace")


def _pace(what: str, tokens: int, seconds: float) -> dict[str, float]:
    return {
        f"{what}_ms": seconds * 1e3,
        f"{what}_per_token_ms": ratio(seconds * 1e3, tokens) or 0.0,
        f"{what}_per_second": ratio(tokens, seconds) or 0.0,
    }


def _sum(stats: Sequence[Stats]) -> Stats:
    """The counts of several runs as those of one, which waited as long as the one that waited least."""
    if len(stats) == 1:
        return stats[0]
    firsts = [each.time_to_first_token for each in stats if each.time_to_first_token is not None]
    total = Stats(
        texts=sum(each.predicted_tokens > 0 for each in stats),
        queue_seconds=min(each.queue_seconds for each in stats),
        time_to_first_token=min(firsts, default=None),
        drafted_at=[sum(column) for column in zip_longest(*(s.drafted_at for s in stats), fillvalue=0)],
        accepted_at=[sum(column) for column in zip_longest(*(s.accepted_at for s in stats), fillvalue=0)],
    )
    for name in _SUMMED:
        setattr(total, name, sum(getattr(each, name) for each in stats))
    for each in stats:
        for name, counted in each.drafters.items():
            total.drafters.setdefault(name, DrafterStats()).add(counted)
    return total
