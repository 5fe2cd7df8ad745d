"""What an engine says about a request. Plain frozen data; one terminal event per request, always."""

from dataclasses import dataclass
from enum import StrEnum


class FinishReason(StrEnum):
    STOP = "stop"  # an end-of-generation token, or a stop string
    LENGTH = "length"  # the budget or the context is used up
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TokenDetail:
    """One token, who drafted it (empty: nobody), and in which round, from 1, it was emitted.

    `logprob` is the natural logarithm of its probability in the main model's row that it was judged by, raw
    or after the samplers, `top` the most probable tokens of that row with theirs; both only where they were
    asked for.
    """

    token: int
    source: str
    round: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TextEvent:
    """Text that is final. `drafted`: its last token came out of an accepted draft.

    `tokens` are the ids whose text is complete with this event: usually one, more where a
    character or a possible stop string spans several tokens. `details` has one entry for each of them,
    where the request asked for it.
    """

    request: int
    text: str
    tokens: tuple[int, ...]
    drafted: bool
    details: tuple[TokenDetail, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptEvent:
    """What the main model made of the prompt's tokens from the second on, before any text."""

    request: int
    details: tuple[TokenDetail, ...]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """How far a prompt of `total` tokens is read; comes where it was asked for, before any text.

    The first one tells of the `cached` tokens, held from before, alone. `seconds` are since it has a slot.
    """

    request: int
    total: int
    cached: int
    processed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """The last event of a request. `error` is set when, and only when, `reason` is ERROR.

    `stopped_by` is the stop string that ended the text, if one did.
    """

    request: int
    reason: FinishReason
    error: Exception | None = None
    stopped_by: str = ""


@dataclass(frozen=True, slots=True)
class DraftedToken:
    """A draft token, who proposed it, and how sure they were that it is kept (0 to 1)."""

    token: int
    source: str
    guess: float


@dataclass(frozen=True, slots=True)
class RoundEvent:
    """One draft and one verification; comes after the text of the round, where it was asked for.

    Of `drafted` the first `width` went through the main model, which kept the first `accepted`. `emitted`
    are those and the main model's own token; `stopped` says why the draft was no wider.
    """

    request: int
    drafter: str
    drafted: tuple[DraftedToken, ...]
    width: int
    accepted: int
    emitted: tuple[int, ...]
    stopped: str | None


Event = ProgressEvent | PromptEvent | TextEvent | RoundEvent | FinishEvent
